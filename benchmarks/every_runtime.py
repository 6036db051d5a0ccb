"""Every TFLite runtime for Python that can be had, each made ready to run a script in.

`ready(folder)` fetches into `folder`, once, wheels of tflite-runtime and ai-edge-litert, and for
runtimes that are older than this Python the 3.9 of Debian 11, unpacked, not installed, and run
through its own loader.  tflite-runtime 2.5 and 2.6 have no wheel for it; of those the interpreter
is taken out of TensorFlow's wheels.  Needs an x86-64 machine with Python 3.11, pip and apt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

TFLITE = ("2.5.3", "2.6.5", "2.7.0", "2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.0", "2.13.0")
LITERT = ("1.0.1", "1.1.2", "1.2.0", "1.3.0", "1.4.0", "2.0.2", "2.1.5", "2.2.0", "2.3.0")
FROM_TENSORFLOW = ("2.5.3", "2.6.5")
NUMPY = "numpy==1.26.4"
PLATFORMS = ("2010", "2014", "_2_17", "_2_27", "_2_28", "_2_31", "_2_34")
DEBS = ("python3.9-minimal", "libpython3.9-stdlib", "libc6", "libstdc++6", "libgcc-s1")
MORE_DEBS = ("zlib1g", "libexpat1", "libffi7")


@dataclass(frozen=True)
class Runtime:
    """A runtime's name, and how a Python script is run with it and numpy alone."""

    name: str
    python: tuple[str, ...]
    path: tuple[Path, ...]
    libraries: str = ""

    def run(self, script: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run `script`; its output is captured as text."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, self.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}),
        }
        command = [*self.python, str(script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=check)


def ready(folder: Path) -> list[Runtime]:
    """Return all runtimes, the oldest first; a minute on the first call."""
    folder = folder.resolve()
    old, new = (_debian_python(folder),), (sys.executable, "-S")
    numpy = {v: _wheels(folder / f"numpy-{v}", v, NUMPY) for v in ("3.9", "3.11")}
    found = []
    for version in TFLITE:
        path = folder / f"tflite-runtime-{version}"
        libraries = ""
        if version in FROM_TENSORFLOW:
            libraries = str(_taken_out(folder, path, version))
        else:
            _wheels(path, "3.9", f"tflite-runtime=={version}")
        found.append(Runtime(f"tflite-runtime {version}", old, (path, numpy["3.9"]), libraries))
    last = [("tflite-runtime", "2.14.0"), *(("ai-edge-litert", version) for version in LITERT)]
    for package, version in last:
        path = _wheels(folder / f"{package}-{version}", "3.11", f"{package}=={version}")
        found.append(Runtime(f"{package} {version}", new, (path, numpy["3.11"])))
    return found


def _pip(*arguments: str, python: str) -> None:
    platforms = [f"manylinux{version}_x86_64" for version in PLATFORMS]
    command = [sys.executable, "-m", "pip", *arguments[:1], "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command += [word for platform in platforms for word in ("--platform", platform)]
    subprocess.run([*command, *arguments[1:]], check=True)


def _wheels(target: Path, python: str, requirement: str) -> Path:
    if not target.is_dir():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _pip("install", "--target", str(partial), requirement, python=python)
        partial.rename(target)
    return target


def _taken_out(folder: Path, target: Path, version: str) -> Path:
    """Make a `tflite_runtime` of TensorFlow's wheel; return where its libraries are."""
    wheel = folder / f"tensorflow-{version}"
    if not target.is_dir():
        _pip("download", "--dest", str(wheel), f"tensorflow-cpu=={version}", python="3.9")
        (file,) = wheel.glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            wanted = ("tensorflow/lite/python/", "tensorflow/libtensorflow_framework")
            archive.extractall(wheel, [n for n in archive.namelist() if n.startswith(wanted)])
        file.unlink()
        lite = wheel / "tensorflow/lite/python"
        package = target.with_name(f"{target.name}.partial") / "tflite_runtime"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        names = ("interpreter.py", "metrics_portable.py", "metrics_interface.py")
        for name in (*names, "interpreter_wrapper/_pywrap_tensorflow_interpreter_wrapper.so"):
            shutil.copy(lite / name, package)
        package.parent.rename(target)
    return wheel / "tensorflow"


def _debian_python(folder: Path) -> str:
    """Unpack Python 3.9 and its libraries from Debian 11; return what starts it."""
    start, root, apt = folder / "python3.9", folder / "debian", folder / "apt"
    if start.is_file():
        return str(start)
    for place in ("state/lists/partial", "cache/archives/partial"):
        (apt / place).mkdir(parents=True, exist_ok=True)
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirror = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split()[0]
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={key}] {mirror} bullseye main\n")
    options = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    command = ["apt-get", "-qq", *(w for k, v in options.items() for w in ("-o", f"{k}={v}"))]
    subprocess.run([*command, "update"], check=True)
    subprocess.run(
        [*command, "-y", "-d", "install", *DEBS, *MORE_DEBS], check=True, stdout=subprocess.DEVNULL
    )
    for name in ("lib", "lib64", "bin"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for deb in (apt / "cache/archives").glob("*.deb"):
        opened = ["dpkg-deb", "--fsys-tarfile", str(deb)]
        unpacked = subprocess.run(opened, capture_output=True, check=True).stdout
        untar = ["tar", "x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        subprocess.run(untar, input=unpacked, check=True)
    libraries = f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu"
    loader = f"{root}/lib/x86_64-linux-gnu/ld-2.31.so"
    start.write_text(
        f'#!/bin/sh\nexec {loader} --library-path "{libraries}:$LD_LIBRARY_PATH"'
        f' {root}/usr/bin/python3.9 "$@"\n'
    )
    start.chmod(0o755)
    return str(start)
