package dev.stillroom.model

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import dev.stillroom.tokenization.Encoding
import java.nio.ByteBuffer

/** What this flavour of the app runs models with: ONNX Runtime, by its Java API. */
val runtime: Runtime = OnnxRuntime

private object OnnxRuntime : Runtime {
    override val name = "onnxruntime"
    override val version: String get() = environment.version
    override val target = linkedSetOf("onnx", "ort")
    override val needsPath = false

    /**
     * The first use loads the native library, whose telemetry is on by default from 1.29 on. Whoever is first
     * must have set ORT_DISABLE_TELEMETRY=1 in the environment before (ui/ does, by Os.setenv); this turns
     * off the rest.
     */
    private val environment: OrtEnvironment by lazy {
        try {
            OrtEnvironment.getEnvironment().also { it.setTelemetry(false) }
        } catch (error: LinkageError) {
            throw BundleError.WrongRuntime(
                "onnxruntime's library does not load here, $error: install the app again",
                error,
            )
        } catch (error: OrtException) {
            throw BundleError.WrongRuntime(
                "onnxruntime does not start, ${error.message}: install the app again",
                error,
            )
        }
    }

    override fun open(bundle: Bundle, threads: Int): Model {
        val model = bundle.manifest.model
        val path = bundle.source.path(model.file)
        // Without a path, from the APK: its pages come in as they are read, and none of them is on the heap.
        val content = if (path == null) bundle.source.map(model.file) else null
        try {
            val session = OrtSession.SessionOptions().use { options ->
                options.setIntraOpNumThreads(threads)
                options.setInterOpNumThreads(1)
                // The .ort format is used where it lies. The buffer is kept for as long as the session.
                if (model.target == "ort" && content != null) {
                    options.addConfigEntry("session.use_ort_model_bytes_directly", "1")
                }
                if (content == null) {
                    environment.createSession(path, options)
                } else {
                    environment.createSession(content, options)
                }
            }
            val inputs = bundle.manifest.task.inputs.toSet()
            if (session.inputNames != inputs) {
                val found = session.inputNames.toString()
                session.close()
                throw BundleError.ModelFailed(
                    "${model.file} has inputs ${shown(found)}, wanted $inputs: $MAKE_AGAIN",
                )
            }
            return OnnxModel(environment, session, content, ModelInputs(bundle.manifest))
        } catch (error: OrtException) {
            throw failed("open", bundle.manifest, error)
        }
    }
}

private class OnnxModel(
    private val environment: OrtEnvironment,
    private val session: OrtSession,
    @Suppress("unused") private val content: ByteBuffer?, // kept from being unmapped
    private val inputs: ModelInputs,
) : Model {
    override fun logits(encoding: Encoding): FloatArray {
        val shape = longArrayOf(1, inputs.fill(encoding).toLong())
        val tensors = LinkedHashMap<String, OnnxTensor>()
        try {
            for ((name, buffer) in inputs.buffers) {
                tensors[name] = OnnxTensor.createTensor(environment, buffer, shape)
            }
            session.run(tensors).use { result ->
                val found = result.get(0) as? OnnxTensor
                val values = found?.floatBuffer
                    ?: throw BundleError.ModelFailed("the model's output is no float tensor: $MAKE_AGAIN")
                return FloatArray(values.remaining()).also { values.get(it) }
            }
        } catch (error: OrtException) {
            throw BundleError.ModelFailed(
                "onnxruntime cannot run the model, ${error.message}: $MAKE_AGAIN",
                error,
            )
        } finally {
            tensors.values.forEach { it.close() }
        }
    }

    override fun close() = session.close()
}

private fun failed(verb: String, manifest: Manifest, error: OrtException): BundleError.ModelFailed {
    val older = manifest.notice?.let { " ($it)" }.orEmpty()
    return BundleError.ModelFailed(
        "onnxruntime cannot $verb ${manifest.model.file}$older, ${error.message}: $MAKE_AGAIN",
        error,
    )
}
