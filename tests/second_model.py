"""A second model to serve beside the shipped one, which nobody can mistake for it."""

import shutil
from pathlib import Path

import msgspec
import onnx

from model import manifest as manifests

WEIGHTS = Path(__file__).parents[1] / "weights"
NAME = "fashion-mnist"


def copy_shipped(weights_dir: Path) -> None:
    for kind in ("keras", "onnx", "npz", "json"):
        shutil.copy(WEIGHTS / f"{NAME}.{kind}", weights_dir)


def add_mirrored(weights_dir: Path, name: str) -> None:
    """The shipped network with its probabilities in reverse order: what is a sandal, it takes for a coat."""
    shipped = manifests.read(WEIGHTS, NAME)
    exported = mirrored(onnx.load(WEIGHTS / shipped.onnx_file)).SerializeToString()
    (weights_dir / f"{name}.onnx").write_bytes(exported)
    for kind in ("keras", "npz"):
        shutil.copy(WEIGHTS / f"{NAME}.{kind}", weights_dir / f"{name}.{kind}")
    its_own = {
        "name": name,
        "version": "2.0.0",
        "keras_file": f"{name}.keras",
        "onnx_file": f"{name}.onnx",
        "onnx_sha256": manifests.sha256(exported),
        "ood_file": f"{name}.npz",
    }
    manifests.write(weights_dir, msgspec.structs.replace(shipped, **its_own))


def mirrored(network: onnx.ModelProto) -> onnx.ModelProto:
    graph = network.graph
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output == "probabilities":
                node.output[index] = "in_order"
    graph.initializer.append(
        onnx.helper.make_tensor("mirror", onnx.TensorProto.INT64, [10], range(9, -1, -1))
    )
    graph.node.append(onnx.helper.make_node("Gather", ["in_order", "mirror"], ["probabilities"], axis=1))
    return network
