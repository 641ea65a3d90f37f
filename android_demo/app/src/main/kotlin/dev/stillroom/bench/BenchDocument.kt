package dev.stillroom.bench

import dev.stillroom.model.ModelFile
import dev.stillroom.model.Runtime
import dev.stillroom.model.writeJson
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale
import java.util.TimeZone

/**
 * The device as android.os.Build tells it. [soc] null where it is not known. [abi] what the app runs as.
 * [cores] that the JVM sees. [ramBytes] memory of the device. Nothing in it tells one device from another of
 * its model.
 */
class DeviceFacts(
    val manufacturer: String,
    val model: String,
    val soc: String?,
    val emulator: Boolean,
    val androidRelease: String,
    val androidSdk: Int,
    val abi: String,
    val cores: Int,
    val ramBytes: Long,
)

/**
 * How the device was, before the warm-up or after the last sample. [thermalStatus] PowerManager's, 0 to 6,
 * null before Android 10. [batteryCelsius] and [batteryPercent] null where they are not known.
 */
class Conditions(val thermalStatus: Int?, val batteryCelsius: Double?, val batteryPercent: Double?)

/**
 * A measurement as the JSON that `stillroom bench --import` reads: docs/schemas/app-bench.schema.json.
 *
 * [pssBytes] memory of the app's process with the model loaded. [finishedAtMs] when the last sample was
 * taken, in milliseconds since 1970. What Android tells in other characters or ranges than the schema has is
 * written as ?, or as not known.
 */
fun benchJson(
    appName: String,
    appVersion: String,
    runtime: Runtime,
    model: ModelFile,
    device: DeviceFacts,
    samples: BenchSamples,
    before: Conditions,
    after: Conditions,
    pssBytes: Long,
    finishedAtMs: Long = System.currentTimeMillis(),
): String = writeJson(
    linkedMapOf(
        "schema_version" to 1,
        "app" to linkedMapOf("name" to line(appName), "version" to line(appVersion)),
        "runtime" to linkedMapOf("name" to runtime.name, "version" to line(runtime.version)),
        "artifact" to linkedMapOf(
            "target" to model.target,
            "scheme" to model.scheme,
            "sha256" to model.sha256, // compared with the file's own when the bundle was opened
            "size_bytes" to model.sizeBytes,
        ),
        "device" to linkedMapOf(
            "manufacturer" to line(device.manufacturer),
            "model" to line(device.model),
            "soc" to device.soc?.let(::line),
            "emulator" to device.emulator,
            "android_release" to line(device.androidRelease),
            "android_sdk" to device.androidSdk,
            "abi" to device.abi,
            "cores" to device.cores.coerceIn(1, 256),
            "ram_bytes" to device.ramBytes.coerceIn(1, 1L shl 40),
        ),
        "settings" to linkedMapOf(
            "threads" to samples.settings.threads,
            "warmup" to samples.settings.warmup,
            "runs" to samples.settings.runs,
            "tokens" to samples.settings.tokens,
        ),
        "samples_ms" to samples.samplesMs.asList(),
        "load_ms" to samples.loadMs,
        "first_ms" to samples.firstMs,
        "pss_bytes" to pssBytes.coerceIn(1, 1L shl 40),
        "thermal_status_before" to before.thermalStatus?.takeIf { it in 0..6 },
        "thermal_status_after" to after.thermalStatus?.takeIf { it in 0..6 },
        "battery_celsius_before" to before.batteryCelsius?.takeIf { it in -60.0..150.0 },
        "battery_celsius_after" to after.batteryCelsius?.takeIf { it in -60.0..150.0 },
        "battery_percent" to before.batteryPercent?.takeIf { it in 0.0..100.0 },
        "date" to utc(finishedAtMs),
    ),
)

/** One line of 1 to 100 printable ASCII characters. */
private fun line(text: String): String =
    text.take(100).map { if (it in ' '..'~') it else '?' }.joinToString("").ifEmpty { "?" }

private fun utc(ms: Long): String {
    val format = SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'Z'", Locale.ROOT)
    format.timeZone = TimeZone.getTimeZone("UTC")
    return format.format(Date(ms))
}
