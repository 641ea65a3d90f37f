package dev.stillroom.ui

import android.content.Context
import dev.stillroom.bench.BenchSamples
import dev.stillroom.bench.BenchSettings
import dev.stillroom.bench.Conditions
import dev.stillroom.bench.benchJson
import dev.stillroom.bench.runBench
import dev.stillroom.model.Bundle
import dev.stillroom.model.runtime
import java.io.File
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale

/** A finished measurement. [pssBytes] with the model loaded; [json] as it was written to [file]. */
internal class Measured(
    val samples: BenchSamples,
    val after: Conditions,
    val charging: Boolean,
    val pssBytes: Long,
    val json: String,
    val file: File,
)

/** Measure and write the result to the app's storage. Blocks: call it off the main thread. */
internal fun measure(
    context: Context,
    bundle: Bundle,
    settings: BenchSettings,
    progress: (Int) -> Unit,
    cancelled: () -> Boolean,
): Measured {
    val before = conditions(context)
    val calls = settings.calls
    var pssBytes = 0L
    val samples = runBench(bundle, runtime, settings, cancelled = cancelled, progress = { done ->
        progress(done)
        if (done == calls) pssBytes = pssBytes() // the last is timed, and the model still loaded
    })
    val after = conditions(context)
    val now = System.currentTimeMillis()
    val version = context.packageManager.getPackageInfo(context.packageName, 0).versionName
    val json = benchJson(
        context.packageName, version.orEmpty(), runtime, bundle.manifest.model,
        deviceFacts(context), samples, before, after, pssBytes, now,
    )
    val folder = File(context.filesDir, "benchmarks").apply { mkdirs() }
    val date = SimpleDateFormat("yyyyMMdd-HHmmss", Locale.ROOT).format(Date(now))
    val file = File(folder, "bench-$date.json")
    file.writeText(json)
    return Measured(samples, after, charging(context), pssBytes, json, file)
}

/** Calls in all: the first of its own, the warm-up and the timed ones. */
internal val BenchSettings.calls: Int get() = 1 + warmup + runs
