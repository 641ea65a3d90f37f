package dev.stillroom.model

import dev.stillroom.bench.BenchSettings
import dev.stillroom.bench.Conditions
import dev.stillroom.bench.DeviceFacts
import dev.stillroom.bench.benchJson
import dev.stillroom.bench.percentiles
import dev.stillroom.bench.runBench
import java.io.File

/**
 * What tests/android/ drives on a JVM: a verb, then its arguments; answers are lines on the standard output.
 */
object JvmMain {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val rest = arguments.drop(1)
        when (val verb = arguments.first()) {
            "answers" -> for (folder in rest) println(answers(FolderSource(File(folder))))
            "mapped" -> for (folder in rest) println(answers(MappedSource(FolderSource(File(folder)))))
            "open" -> answerLines(::opened)
            "percentiles" -> answerLines { line ->
                val samples = (parseJson(line.toByteArray()) as List<*>).map { (it as Number).toDouble() }
                writeJson(percentiles(samples.toDoubleArray()))
            }
            "bench" -> println(bench(File(rest[0])))
            else -> error("no verb $verb")
        }
    }

    private fun answerLines(answer: (String) -> String) {
        for (line in System.`in`.bufferedReader().lineSequence()) {
            println(answer(line))
            System.out.flush()
        }
    }

    /** What the app answers to a bundle's golden texts, with the real runtime. */
    private fun answers(source: BundleSource): String =
        openClassifier(source, threads = 1).use { writeJson(answersOf(it)) }

    private fun answersOf(classifier: Classifier): Map<String, Any?> {
        val answers = classifier.bundle.goldens.map { golden ->
            val answer = classifier.classify(golden.text, golden.pair)
            mapOf(
                "ids" to classifier.encode(golden.text, golden.pair).ids.asList(),
                "logits" to answer.logits.asList(),
                "labels" to answer.labels,
                "score" to answer.score,
                "probabilities" to answer.probabilities.toMap(),
                "tokens" to answer.tokens,
            )
        }
        val report = replayGoldens(classifier)
        return mapOf(
            "version" to runtime.version,
            "notice" to classifier.bundle.manifest.notice,
            "answers" to answers,
            "count" to report.count,
            "max_abs_error" to report.maxAbsError,
            "difference" to report.firstDifference,
        )
    }

    private class MappedSource(private val folder: FolderSource) : BundleSource by folder {
        override fun path(file: String): String? = null
    }

    /**
     * Open "folder", or "zip" and the folder it is unpacked to, without native code: "ok", or the kind of
     * [BundleError] and its message, or "UNTYPED" and whatever else was thrown.
     */
    private fun opened(line: String): String = try {
        val paths = line.split('\t')
        val source = FolderSource(File(paths.last()))
        if (paths.size == 1) {
            source.checkFlat()
            openBundle(source, FakeRuntime())
        } else {
            File(paths[0]).inputStream().use { zip ->
                unpackBundle(zip, File(paths[1]), maxBytes = 1 shl 20) { openBundle(it, FakeRuntime()) }
            }
        }
        "ok"
    } catch (error: BundleError) {
        "${error.javaClass.simpleName} ${error.message}"
    } catch (error: Throwable) {
        "UNTYPED $error".replace('\n', ' ')
    }

    private fun bench(folder: File): String {
        val bundle = openBundle(FolderSource(folder))
        val settings = BenchSettings(threads = 1, warmup = 3, runs = 20, tokens = 16)
        val samples = runBench(bundle, runtime, settings)
        val device = DeviceFacts(
            manufacturer = "no phone", model = "JVM", soc = null, emulator = true, androidRelease = "0",
            androidSdk = 26, abi = "x86_64", cores = 2, ramBytes = 1L shl 30,
        )
        val unknown = Conditions(thermalStatus = null, batteryCelsius = null, batteryPercent = null)
        return benchJson(
            "stillroom", "0.1.0", runtime, bundle.manifest.model, device, samples, unknown, unknown,
            pssBytes = 1L shl 20,
        )
    }
}
