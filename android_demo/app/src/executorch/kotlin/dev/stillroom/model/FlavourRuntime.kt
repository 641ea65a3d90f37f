package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** What this flavour of the app runs models with: ExecuTorch, by its Java API. */
val runtime: Runtime = ExecuTorchRuntime

private object ExecuTorchRuntime : Runtime {
    override val name = "executorch"

    /** The library does not tell: the version of gradle/libs.versions.toml, to be changed with it. */
    override val version = "1.4.1"
    override val target = linkedSetOf("executorch")
    override val needsPath = true

    override fun open(bundle: Bundle, threads: Int): Model {
        val file = bundle.manifest.model.file
        val path = bundle.source.path(file) ?: throw BundleError.ModelFailed(
            "executorch opens files by path, $file is within the APK: copy the bundle to storage with " +
                "copyBundle first",
        )
        return attempt("open $file") {
            val module = Module.load(path, Module.LOAD_MODE_MMAP, threads)
            val status = module.loadMethod(METHOD)
            if (status != 0) {
                module.destroy()
                throw BundleError.ModelFailed("executorch cannot open $file, its error $status: $MAKE_AGAIN")
            }
            ExecuTorchModel(module, ModelInputs(bundle.manifest))
        }
    }
}

private const val METHOD = "forward"

private class ExecuTorchModel(private val module: Module, private val inputs: ModelInputs) : Model {
    override fun logits(encoding: Encoding): FloatArray = attempt("run the model") {
        val shape = longArrayOf(1, inputs.fill(encoding).toLong())
        val values = inputs.buffers.values.map { EValue.from(Tensor.fromBlob(it, shape)) }
        val found = module.execute(METHOD, *values.toTypedArray()).firstOrNull()
        if (found == null || !found.isTensor) {
            throw BundleError.ModelFailed("the model's output is no tensor: $MAKE_AGAIN")
        }
        found.toTensor().dataAsFloatArray
    }

    override fun close() = module.destroy()
}

/** ExecuTorch throws unchecked exceptions, and link errors where its library is not in the app. */
private inline fun <T> attempt(what: String, action: () -> T): T = try {
    action()
} catch (error: BundleError) {
    throw error
} catch (error: RuntimeException) {
    throw BundleError.ModelFailed("executorch cannot $what, ${error.message}: $MAKE_AGAIN", error)
} catch (error: LinkageError) {
    throw BundleError.WrongRuntime(
        "executorch's library does not load here, $error: install the app again",
        error,
    )
}
