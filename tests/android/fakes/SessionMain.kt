package dev.stillroom.ui

import android.content.Context
import android.net.Uri
import android.os.Looper
import android.system.Os
import dev.stillroom.bench.BenchSettings
import dev.stillroom.model.writeJson
import java.io.File
import java.util.concurrent.TimeUnit

/** Plays the activity: does what each line of the input says, and prints what the session holds then. */
object SessionMain {
    private val seen = ArrayList<String>()
    private val benchDone = ArrayList<Int>()
    private val sessions = ArrayList<Session>()
    private var closed = false

    @JvmStatic
    fun main(arguments: Array<String>) {
        val context = Context(File(arguments[0]), File(arguments[1]))
        var session = start(context)
        for (line in generateSequence(::readLine)) {
            seen.clear()
            benchDone.clear()
            val words = line.split('\t')
            when (words[0]) {
                "wait" -> {}
                "classify" -> session.classify(words[1], words.getOrNull(2))
                "replay" -> session.replay()
                "pick" -> session.pick(Uri(words[1]))
                "built-in" -> session.useBuiltIn()
                "measure" -> {
                    val (threads, warmup, runs) = words.drop(1).map(String::toInt)
                    session.measure(BenchSettings(threads, warmup, runs, 8))
                }
                "measure-and-cancel" -> {
                    session.measure(BenchSettings(1, 0, 10_000, 8))
                    session.cancelBenchmark()
                }
                "save" -> session.save(Uri(words[1]))
                "twice" -> repeat(2) { session.classify(words[1], null) }
                "close" -> session.close().also { closed = true }
                "close-at-once" -> {
                    session.classify(words[1], null)
                    session.close()
                    closed = true
                }
                "restart" -> session = start(context)
            }
            settle(session)
            println(writeJson(stateOf(session)))
        }
        sessions.forEach { it.close() } // a thread that was not let go would keep this program from ending
    }

    private fun start(context: Context): Session {
        closed = false
        val session = Session(context).also(sessions::add)
        session.changed = {
            seen.add(session.doing?.name ?: "idle")
            benchDone.add(session.benchDone)
        }
        return session
    }

    /** The main thread: run what was posted until nothing comes any more. */
    private fun settle(session: Session) {
        val posted = Looper.getMainLooper().posted
        while (true) {
            val wait = if (session.doing != null && !closed) 20_000L else 300L
            (posted.poll(wait, TimeUnit.MILLISECONDS) ?: return).run()
        }
    }

    private fun stateOf(session: Session) = linkedMapOf(
        "bundle" to session.bundle?.manifest?.name,
        "picked" to session.picked,
        "doing" to session.doing?.name,
        "seen" to seen.toList(),
        "golden" to session.golden?.let { listOf(it.count, it.maxAbsError, it.allowed, it.firstDifference) },
        "labels" to session.answer?.labels,
        "failure" to session.failure?.let { it.javaClass.simpleName + ": " + it.message },
        "measured" to session.measured?.json,
        "file" to session.measured?.file?.path,
        "cancelled" to session.benchCancelled,
        "saved" to session.benchSaved,
        "bench_done" to benchDone.maxOrNull(),
        "telemetry" to Os.environment["ORT_DISABLE_TELEMETRY"],
    )
}
