"""R8: class files to the dex files that ship, with what is not used left out and names made short."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import CheckFailed
from stillroom.export.android.compile import JAVA_OPTIONS, require_jdk, run_tool
from stillroom.export.android.toolchain import Toolchain

# What Gradle's default file says of such an app; activities and views are kept by aapt2's own list.
DEFAULT_RULES = """
-allowaccessmodification
-keepattributes *Annotation*,Signature,InnerClasses,EnclosingMethod
-keepclasseswithmembernames,includedescriptorclasses class * { native <methods>; }
-keepclassmembers enum * { public static **[] values(); public static ** valueOf(java.lang.String); }
-keepclassmembers class * implements android.os.Parcelable { public static final ** CREATOR; }
# Android's classes here are of API 23, and the libraries know of newer ones.
-dontwarn java.**
-dontwarn javax.**
-dontwarn kotlin.**
-dontwarn org.jetbrains.annotations.**
-dontwarn ai.onnxruntime.**
"""


def shrink(
    tools: Toolchain,
    classes: Sequence[Path],
    rules: Sequence[Path],
    out: Path,
    *,
    libraries: Sequence[Path] = (),
    min_sdk: int = 26,
) -> list[Path]:
    """Write classes.dex, and classes2.dex and so on when needed, into the folder out; returns them.

    classes: jars, and folders of class files; Kotlin's library is with them. rules: files, beside
    DEFAULT_RULES. libraries: jars to compile against besides Android's own.
    Raises CheckFailed with R8's first error, or when nothing is kept, UsageError when there is no JDK.
    """
    require_jdk()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        packed, defaults = Path(folder) / "classes.jar", Path(folder) / "default.pro"
        with zipfile.ZipFile(packed, "w") as jar:
            for root in (path for path in classes if path.is_dir()):
                for path in sorted(root.rglob("*.class")):
                    jar.write(path, path.relative_to(root).as_posix())
        defaults.write_text(DEFAULT_RULES, "utf-8")
        command: list[str | Path] = ["java", *JAVA_OPTIONS, "-cp", tools.d8_jar, "com.android.tools.r8.R8"]
        command += ["--release", "--min-api", str(min_sdk)]
        for library in (tools.android_jar, *libraries):
            command += ["--lib", library]
        for rule in (defaults, *rules):
            command += ["--pg-conf", rule]
        jars = [path for path in classes if path.is_file()]
        run_tool([*command, "--output", out, packed, *jars, tools.kotlin_stdlib], name="R8")
    if not (found := sorted(out.glob("*.dex"))):
        raise CheckFailed("R8 kept no class: the manifest's activity is not among the sources")
    return found
