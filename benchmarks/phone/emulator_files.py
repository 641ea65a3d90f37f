"""arm64 under emulation: emulator, libraries and runtimes, fetched by hash and put together in a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stillroom.benchmarks.phone.compile import ARM64, X86_64, compile_c
from stillroom.benchmarks.phone.device_files import DEFAULT_FOLDER, build_runner, load_runner
from stillroom.benchmarks.phone.device_files import TABLE as DEVICE_TABLE
from stillroom.errors import UsageError
from stillroom.fetch import fetch_debs, unpack_wheel
from stillroom.files import sha256_file, sha256_json

HERE = Path(__file__).parent
TABLE = HERE / "emulator_files.toml"
STUBS = HERE / "torch_stubs.txt"
PLUGIN = HERE / "insn_count.c"
FETCH_HINT = "python -m stillroom.benchmarks.phone --fetch"
# torch for arm64 imports these; they have no compiled parts that it needs, so this environment's own do.
PURE_PACKAGES = (
    "typing_extensions",
    "filelock",
    "fsspec",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
)


@dataclass(frozen=True)
class Emulator:
    """What runs arm64 programs here. folder: what build_emulator made; device: the runner's files."""

    folder: Path
    device: Path

    @property
    def qemu(self) -> Path:
        """The emulator itself."""
        return self.folder / "qemu/usr/bin/qemu-aarch64"

    def run(self, core: str, program: list[str], environment: dict[str, str] | None = None) -> list[str]:
        """The command that runs an arm64 program on a named core, such as cortex-a76."""
        given = [word for name, value in (environment or {}).items() for word in ("-E", f"{name}={value}")]
        return [str(self.qemu), "-cpu", core, "-L", str(self.folder / "arm64"), *given, *program]

    def runner(self, files: list[str]) -> list[str]:
        """The arm64 program that runs ONNX files, and its arguments."""
        loader, program = self.device / "ld-linux-aarch64.so.1", self.device / "runner"
        return [str(loader), "--library-path", str(self.device), str(program), *files]

    def counting(self, core: str, files: list[str]) -> tuple[list[str], dict[str, str]]:
        """The command that runs the runner with an older onnxruntime and counts instructions, and its
        environment here; the count goes to the file that INSN_COUNT_FILE names."""
        qemu = self.folder / "counting_qemu"
        libraries = f"{qemu}/usr/lib/x86_64-linux-gnu:{qemu}/lib/x86_64-linux-gnu"
        loader, program = self.device / "ld-linux-aarch64.so.1", self.device / "runner"
        guest = f"{self.folder / 'counted'}:{self.device}"
        command = [str(qemu / "usr/bin/qemu-aarch64"), "-cpu", core, "-plugin",
                   str(self.folder / "insn_count.so"), "-L", str(self.folder / "arm64"), "-E",
                   "LD_LIBRARY_PATH=", str(loader), "--library-path", guest, str(program),
                   *files]  # fmt: skip
        return command, {"LD_LIBRARY_PATH": libraries}

    def python(self, core: str, script: list[str]) -> list[str]:
        """The command that runs a script by Python for arm64, with torch and executorch for arm64."""
        environment = {
            "LD_LIBRARY_PATH": f"{self.folder}/site/torch/lib:{self.folder}/stubs",
            "PYTHONPATH": f"{self.folder}/site:{self.folder}/pure",
            "OMP_NUM_THREADS": "1",
        }
        return self.run(core, [str(self.folder / "arm64/usr/bin/python3.11"), "-S", *script], environment)


def _key() -> str:
    """What the folder is made from, so that another version of it is another folder."""
    sources = (TABLE, DEVICE_TABLE, STUBS, PLUGIN, HERE / "runner.c", Path(__file__))
    return sha256_json([sha256_file(path) for path in sources])[:16]


def load_emulator(folder: Path = DEFAULT_FOLDER) -> Emulator:
    """What build_emulator made. Raises UsageError, with the command to make it, when it is not there."""
    made = folder / f"emulator-{_key()}"
    if not made.is_dir():
        raise UsageError(f"there is no arm64 emulator of this version in {folder}: {FETCH_HINT}")
    load_runner(folder)  # raises when its files were changed
    return Emulator(made.resolve(), (folder / "device").resolve())


def build_emulator(folder: Path = DEFAULT_FOLDER) -> Emulator:
    """Fetch and put together what load_emulator reads; nothing is done when it is there.

    Raises UsageError when something cannot be fetched or built, or this is not x86-64 Linux.
    """
    try:
        load_runner(folder)
    except UsageError:
        build_runner(folder)
    with contextlib.suppress(UsageError):
        return load_emulator(folder)
    debs, runner_debs = fetch_debs(TABLE, folder), fetch_debs(DEVICE_TABLE, folder)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        partial = Path(work) / "emulator"
        shutil.copytree(debs, partial, symlinks=True)
        shutil.copytree(runner_debs / "arm64", partial / "arm64", symlinks=True, dirs_exist_ok=True)
        _merge_usr(partial / "arm64")
        compiler = unpack_wheel(DEVICE_TABLE, "compiler", folder, Path(work) / "compiler")
        counted = unpack_wheel(TABLE, "counted_onnxruntime", folder, Path(work) / "counted")
        (library,) = counted.glob("onnxruntime/capi/libonnxruntime.so.*")
        (partial / "counted").mkdir()
        shutil.copyfile(library, partial / "counted/libonnxruntime.so.1")
        for part in ("torch", "executorch"):
            unpack_wheel(TABLE, part, folder, partial / "site")
        compile_c(
            compiler, X86_64, PLUGIN, partial / "insn_count.so", ["-shared", "-Wl,--allow-shlib-undefined"]
        )
        _make_stubs(compiler, partial / "stubs")
        _link_pure(partial / "pure")
        partial.rename(folder / f"emulator-{_key()}")
    return load_emulator(folder)


def _merge_usr(root: Path) -> None:
    """lib/ into usr/lib/, as all Debian systems have it; the older packages still come apart."""
    if (root / "lib").is_dir() and not (root / "lib").is_symlink():
        shutil.copytree(root / "lib", root / "usr/lib", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(root / "lib")
    (root / "lib").symlink_to("usr/lib")
    loader = root / "usr/lib/ld-linux-aarch64.so.1"
    if not loader.is_symlink() and not loader.exists():
        loader.symlink_to("aarch64-linux-gnu/ld-linux-aarch64.so.1")


def read_stubs(text: str) -> dict[str, list[str]]:
    """Library name -> its functions, from a file of [library] lines with a function a line below."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            names = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            names.append(line)
    return found


def _make_stubs(compiler: Path, out: Path) -> None:
    out.mkdir()
    with tempfile.TemporaryDirectory() as work:
        for library, names in read_stubs(STUBS.read_text("utf-8")).items():
            source = Path(work) / "stub.c"
            # 100: cudaErrorNoDevice
            lines = [f"long {name}(void) {{ return 100; }}" for name in names]
            source.write_text("\n".join(lines or ["int nothing;"]), "utf-8")
            options = ["-shared", "-w", "-fno-builtin", f"-Wl,-soname,{library}"]
            compile_c(compiler, ARM64, source, out / library, options)


def _link_pure(out: Path) -> None:
    out.mkdir()
    for name in PURE_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise UsageError(
                f"{name} is not installed, which torch needs: pip install 'stillroom[executorch]'"
            )
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (out / source.name).symlink_to(source)
