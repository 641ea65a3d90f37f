package dev.stillroom.ui

import android.content.Context
import android.net.Uri
import android.system.Os
import dev.stillroom.bench.BenchSettings
import dev.stillroom.demo.R
import dev.stillroom.model.Answer
import dev.stillroom.model.Bundle
import dev.stillroom.model.Classifier
import dev.stillroom.model.GoldenReport
import dev.stillroom.model.openClassifier
import dev.stillroom.model.replayGoldens
import dev.stillroom.model.runtime
import java.util.concurrent.CancellationException

/** What is done in the background at the moment; [text] says so. */
internal enum class Doing(val text: Int) {
    OPENING(R.string.state_loading),
    PICKING(R.string.bundle_copying),
    REPLAYING(R.string.golden_running),
    CLASSIFYING(R.string.state_classifying),
    MEASURING(R.string.state_benchmark),
}

/**
 * What outlives a rotation: the open bundle, what it answered, and the background thread.
 *
 * All properties are read and set on the main thread, but for the classifier, which is the background's.
 * It holds no view and no activity: [changed] is set by the one that shows it, and taken back when that goes.
 */
internal class Session(context: Context) {
    private val app: Context = context.applicationContext
    private val worker = Worker()
    private val store = BundleStore(app)
    private val goldenMemory = GoldenMemory(app)
    private var classifier: Classifier? = null

    @Volatile
    private var cancelled = false

    var changed: () -> Unit = {}
    var doing: Doing? = null
        private set
    var bundle: Bundle? = null
        private set
    val picked: Boolean get() = store.picked
    var golden: GoldenReport? = null
        private set
    var answer: Answer? = null
        private set
    var failure: Throwable? = null
        private set
    var benchDone = 0
        private set
    var benchCalls = 1
        private set
    var measured: Measured? = null
        private set
    var benchCancelled = false
        private set
    var benchSaved = false
        private set

    init {
        // Before anything loads the runtime's library, whose telemetry is on by default.
        Os.setenv("ORT_DISABLE_TELEMETRY", "1", true)
        open()
    }

    /** Use a .zip that the user picked; when it is refused, the open bundle stays. */
    fun pick(zip: Uri) = start(Doing.PICKING, {
        store.pick(zip) { openClassifier(it, THREADS).close() }
    }) { open() }

    /** Back to the bundle that came with the app. */
    fun useBuiltIn() = start(Doing.OPENING, { store.useBuiltIn() }) { open() }

    fun classify(text: String, pair: String?) {
        val bundle = bundle ?: return
        start(Doing.CLASSIFYING, { opened(bundle).classify(text, pair) }) { answer = it }
    }

    /** Replay the golden vectors, and remember how it went. */
    fun replay() {
        val bundle = bundle ?: return
        start(Doing.REPLAYING, {
            replayGoldens(opened(bundle)).also { goldenMemory.remember(bundle, it) }
        }) { golden = it }
    }

    fun measure(settings: BenchSettings) {
        val bundle = bundle ?: return
        cancelled = false
        benchDone = 0
        benchCalls = settings.calls
        benchCancelled = false
        benchSaved = false
        start(Doing.MEASURING, {
            release() // one model in memory, not two
            measure(app, bundle, settings, ::benchProgress) { cancelled }
        }) { measured = it }
    }

    fun cancelBenchmark() {
        cancelled = true
    }

    /** Write the last measurement where the user wants it. */
    fun save(to: Uri) {
        val json = measured?.json ?: return
        worker.run({
            app.contentResolver.openOutputStream(to, "wt")!!.use { it.write(json.toByteArray()) }
        }) { result ->
            failure = result.exceptionOrNull()
            benchSaved = result.isSuccess
            changed()
        }
    }

    /** Something went wrong outside: show it. */
    fun failed(error: Throwable) {
        failure = error
        changed()
    }

    /** The end: the work in progress is let go, then the model. */
    fun close() {
        cancelled = true
        worker.close { release() }
    }

    private fun open() {
        bundle = null
        golden = null
        answer = null
        measured = null
        start(Doing.OPENING, {
            release()
            val opened = openClassifier(store.source(), THREADS).also { classifier = it }
            opened.bundle to goldenMemory.recall(opened.bundle)
        }) { (opened, known) ->
            bundle = opened
            golden = known
            if (known == null) replay()
        }
    }

    /** Do one thing at a time in the background, and say so. */
    private fun <T> start(what: Doing, work: () -> T, then: (T) -> Unit) {
        if (doing != null) return
        doing = what
        failure = null
        changed()
        worker.run(work) { result ->
            doing = null
            result.onSuccess(then).onFailure {
                if (it is CancellationException) benchCancelled = true else failure = it
            }
            changed()
        }
    }

    /** The classifier, opened again where a measurement has closed it. */
    private fun opened(bundle: Bundle): Classifier =
        classifier ?: Classifier(bundle, runtime.open(bundle, THREADS)).also { classifier = it }

    private fun release() {
        classifier?.close()
        classifier = null
    }

    private var lastProgressNs = 0L

    private fun benchProgress(done: Int) {
        val now = System.nanoTime()
        if (now - lastProgressNs < PROGRESS_EVERY_NS) return
        lastProgressNs = now
        worker.post {
            benchDone = done
            changed()
        }
    }

    companion object {
        /** The phone's fast cores are usually half of them; more than 4 do not help a small model. */
        val THREADS = (Runtime.getRuntime().availableProcessors() / 2).coerceIn(1, 4)

        private const val PROGRESS_EVERY_NS = 100_000_000L
    }
}
