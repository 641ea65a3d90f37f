package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import java.io.Closeable

/**
 * An opened model file. Not safe to be called from two threads at a time: [Classifier] sees to it that it is
 * not.
 */
interface Model : Closeable {
    /** Logits [labels] of one encoded text. Throws [BundleError.ModelFailed]. */
    fun logits(encoding: Encoding): FloatArray
}

/**
 * What runs model files. Each product flavour of the app has one, as the top-level `runtime` of its
 * FlavourRuntime.kt; another runtime is another file like that.
 */
interface Runtime {
    /** The package's name as manifest.json has it: "onnxruntime". */
    val name: String

    /** The version of the library that is in the app: "1.29.0". */
    val version: String

    /** Formats of files it opens, by the manifest's names, the usual one first: "onnx". */
    val target: Set<String>

    /**
     * Whether it opens files by path only, so that assets have to be copied to storage first: [copyBundle].
     */
    val needsPath: Boolean

    /** Open a checked bundle's model with so many threads. Throws [BundleError.ModelFailed]. */
    fun open(bundle: Bundle, threads: Int): Model
}
