package dev.stillroom.ui

import android.content.Context
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import dev.stillroom.bench.BenchSettings
import dev.stillroom.bench.percentiles
import dev.stillroom.demo.R

/** Settings, progress and result of a measurement. [share] and [save] leave the app, as an activity does. */
internal class BenchmarkScreen(
    private val root: View,
    private val session: Session,
    private val share: (json: String) -> Unit,
    private val save: (fileName: String) -> Unit,
) {
    private val context: Context = root.context
    private val numbers = Numbers(context)
    private val error = ErrorPanel(root.find(R.id.error))
    private var drawn: Measured? = null
    private var badSetting: String? = null

    init {
        val fields = listOf(
            R.id.threads to Session.THREADS, R.id.warmup to WARMUP, R.id.runs to RUNS, R.id.tokens to TOKENS,
        )
        for ((field, value) in fields) root.find<EditText>(field).setText(value.toString())
        root.find<Button>(R.id.start).setOnClickListener { start() }
        root.find<Button>(R.id.cancel).setOnClickListener { session.cancelBenchmark() }
        root.find<Button>(R.id.share).setOnClickListener { session.measured?.let { share(it.json) } }
        root.find<Button>(R.id.save).setOnClickListener { session.measured?.let { save(it.file.name) } }
    }

    /** Draw what the session holds. */
    fun show() {
        val measuring = session.doing == Doing.MEASURING
        val measured = session.measured
        root.keepScreenOn = measuring // a phone that dozes off measures something else
        error.show(session.failure)
        root.find<Button>(R.id.start).isEnabled = session.doing == null && session.bundle != null
        root.find<View>(R.id.start).shown(!measuring)
        root.find<View>(R.id.cancel).shown(measuring)
        root.find<View>(R.id.progress_track).shown(measuring)
        root.find<View>(R.id.progress_fill).fill(session.benchDone.toFloat() / session.benchCalls)
        root.find<TextView>(R.id.bench_state).show(state(measuring))
        root.find<View>(R.id.bench_result).shown(measured != null && !measuring)
        if (measured != null && measured !== drawn) draw(measured)
        if (session.benchSaved) root.find<TextView>(R.id.saved).show(context.getString(R.string.bench_saved))
        drawn = measured
    }

    private fun state(measuring: Boolean): String? = when {
        measuring -> context.getString(R.string.bench_progress, session.benchDone, session.benchCalls)
        badSetting != null -> badSetting
        session.doing != null -> context.getString(session.doing!!.text)
        session.bundle == null -> context.getString(R.string.bench_no_bundle)
        else -> context.getString(R.string.bench_cancelled).takeIf { session.benchCancelled }
    }

    private fun start() {
        val longest = session.bundle?.manifest?.task?.maxLength ?: return
        badSetting = null
        val threads = number(R.id.threads, R.string.bench_threads, 1..MOST_THREADS)
        val warmup = number(R.id.warmup, R.string.bench_warmup, 0..MOST_RUNS)
        val runs = number(R.id.runs, R.string.bench_runs, 1..MOST_RUNS)
        val tokens = number(R.id.tokens, R.string.bench_tokens, 2..longest)
        if (threads == null || warmup == null || runs == null || tokens == null) return show()
        session.measure(BenchSettings(threads, warmup, runs, tokens))
    }

    private fun number(field: Int, name: Int, range: IntRange): Int? {
        val typed = root.find<EditText>(field).text.toString()
        typed.toIntOrNull()?.let { if (it in range) return it }
        val named = context.getString(name)
        val wrong = context.getString(R.string.bench_range, named, typed, range.first, range.last)
        badSetting = badSetting ?: wrong
        return null
    }

    private fun draw(measured: Measured) {
        val facts = root.find<ViewGroup>(R.id.bench_facts)
        facts.removeAllViews()
        val values = percentiles(measured.samples.samplesMs)
        for ((key, name) in PERCENTILES) {
            facts.addFact(name, context.getString(R.string.bench_ms, numbers.time(values.getValue(key))))
        }
        val unknown = context.getString(R.string.unknown)
        facts.addFact(R.string.bench_memory, numbers.bytes(measured.pssBytes))
        val thermal = context.resources.getStringArray(R.array.thermal)
        val status = measured.after.thermalStatus
        facts.addFact(R.string.bench_thermal, status?.let(thermal::getOrNull) ?: unknown)
        val battery = measured.after.batteryPercent?.let { numbers.percent((it / 100).toFloat()) } ?: unknown
        val fed = if (measured.charging) context.getString(R.string.bench_charging, battery) else battery
        facts.addFact(R.string.bench_battery, fed)
        val written = context.getString(R.string.bench_done, numbers.name(measured.file.name))
        root.find<TextView>(R.id.saved).show(written)
    }

    private companion object {
        const val WARMUP = 5
        const val RUNS = 50
        const val TOKENS = 32
        const val MOST_THREADS = 16
        const val MOST_RUNS = 10_000
        val PERCENTILES = listOf(
            "p50" to R.string.bench_p50, "p90" to R.string.bench_p90,
            "p95" to R.string.bench_p95, "p99" to R.string.bench_p99,
        )
    }
}
