"""A second model to serve beside the shipped one, which nobody can mistake for it."""

import shutil
from pathlib import Path

import msgspec
import onnx

from model import manifest as manifests
from model.manifest import Export, Manifest

WEIGHTS = Path(__file__).parents[1] / "weights"
NAME = "fashion-mnist"
SHIPPED = manifests.folder(WEIGHTS, NAME)


def copy_shipped(weights_dir: Path) -> Path:
    """Returns the folder that the shipped model is copied to."""
    return Path(shutil.copytree(SHIPPED, weights_dir / NAME / SHIPPED.name))


def in_weights(weights_dir: Path, name: str = NAME) -> Path:
    """The folder of the shipped model in another weights_dir."""
    return manifests.folder(weights_dir, name)


def change(folder: Path, **changes: object) -> Manifest:
    """Writes the manifest anew."""
    changed = msgspec.structs.replace(manifests.read(folder), **changes)
    manifests.write(folder, changed)
    return changed


def add_mirrored(weights_dir: Path, name: str) -> None:
    """The shipped network with its probabilities in reverse order: what is a sandal, it takes for a coat."""
    folder = weights_dir / name / "2.0.0"
    folder.mkdir(parents=True)
    shipped = manifests.read(SHIPPED)
    exported = mirrored(onnx.load(SHIPPED / "model.onnx")).SerializeToString()
    (folder / "model.onnx").write_bytes(exported)
    shutil.copy(SHIPPED / "detector.npz", folder)
    its_own = {
        "name": name,
        "version": "2.0.0",
        "keras": None,
        "onnx": Export(file="model.onnx", sha256=manifests.sha256(exported)),
        "golden": (),
    }
    manifests.write(folder, msgspec.structs.replace(shipped, **its_own))


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
