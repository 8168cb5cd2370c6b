"""Downloads Apache Kafka's jars with Maven, once, into a cache folder."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
OLDEST_JAVA = 17


def java() -> str:
    """The Java program: that of JAVA_HOME if set, otherwise the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"


def missing_tools() -> str | None:
    """What to install to run Kafka here; None if everything is installed."""
    if (_java_version() or 0) < OLDEST_JAVA:
        return f"Java {OLDEST_JAVA}+ is needed: `apt install default-jdk-headless` or `brew install openjdk`"
    if not shutil.which("mvn"):
        return "Maven is needed: `apt install maven` or `brew install maven`"
    return None


def resolve_jars(cache: Path) -> Path:
    """The folder with the jars in pom.xml; downloads missing ones. Raises RuntimeError if that fails."""
    jars = cache / "kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if not jars.is_dir():
        jars.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jars.parent) as download:
            _download(Path(download, "jars"))
            _publish(Path(download, "jars"), jars)
    return jars


def _download(target: Path) -> None:
    command = ["mvn", "--quiet", "--batch-mode", f"--file={POM}", f"-Dkafka.jars={target}", "package"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise RuntimeError(f"Maven could not download Apache Kafka:\n{result.stdout[-2000:]}")


def _publish(download: Path, jars: Path) -> None:
    """Renames atomically: nobody sees half a download, and the first of two concurrent ones wins."""
    try:
        download.rename(jars)
    except OSError:
        if not jars.is_dir():
            raise


def _java_version() -> int | None:
    try:
        result = subprocess.run([java(), "-version"], capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r'version "(\d+)', result.stderr)
    return int(found.group(1)) if found else None
