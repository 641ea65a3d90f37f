package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import java.io.File
import java.nio.ByteBuffer

/** A small valid bundle that a test changes before it writes it: [manifest] and [goldens] as JSON values. */
internal class TestBundle(
    kind: TaskKind = TaskKind.CLASSIFICATION,
    pair: Boolean = false,
    tokenTypes: Boolean = false,
) {
    private val labels = if (kind == TaskKind.REGRESSION) listOf("score") else listOf("bad", "good")
    var vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\nfood\nwas\ngreat\n"
    var labelLines = labels.joinToString("") { "$it\n" }
    var model = ByteArray(64) { it.toByte() }
    val goldens: MutableList<Any?> = mutableListOf(golden(kind, pair, tokenTypes))
    val manifest: MutableMap<String, Any?> = linkedMapOf(
        "schema_version" to 3,
        "stillroom_version" to "0.1.0",
        "name" to "a test",
        "task" to linkedMapOf<String, Any?>(
            "labels" to labels, "max_length" to 8, "inputs" to Task.INPUTS.take(if (tokenTypes) 3 else 2),
            "pair" to pair, "kind" to kind.id, "metric" to kind.metric,
        ),
        "pad_id" to 0,
        "tokenizer" to linkedMapOf<String, Any?>(
            "file" to "vocab.txt",
            "kind" to "WordPiece",
            "wordpiece" to linkedMapOf<String, Any?>(
                "lowercase" to true, "strip_accents" to true, "clean_text" to true,
                "handle_chinese_chars" to true, "prefix" to "##", "max_word_chars" to 100,
                "unknown_id" to 1, "cls_id" to 2, "sep_id" to 3,
                "added" to linkedMapOf<String, Any?>("[PAD]" to 0, "[UNK]" to 1, "[CLS]" to 2, "[SEP]" to 3),
            ),
        ),
        "artifacts" to mutableListOf(
            linkedMapOf<String, Any?>(
                "file" to "model.onnx", "target" to "onnx", "scheme" to "fp32", "parameters" to 10,
                "source_sha256" to "0".repeat(64), "lengths" to emptyList<Int>(),
                "runtime" to linkedMapOf<String, Any?>("name" to "onnxruntime", "version" to "1.29.0"),
                "proof" to "run", "differs" to "", "tool_versions" to emptyMap<String, Any?>(),
                "tolerance" to emptyMap<String, Any?>(), "portable" to true,
                "portable_evidence" to emptyMap<String, Any?>(),
            ),
        ),
        "golden" to linkedMapOf<String, Any?>("file" to "golden.json", "count" to 1, "max_abs_error" to 0.05),
        "lineage" to emptyMap<String, Any?>(),
    )

    fun part(vararg path: String): MutableMap<String, Any?> =
        path.fold(manifest) { found, name ->
            val value = found[name]
            at(if (value is List<*>) value[0] else value)
        }

    @Suppress("UNCHECKED_CAST")
    private fun at(value: Any?) = value as MutableMap<String, Any?>

    fun golden(): MutableMap<String, Any?> = at(goldens[0])

    /**
     * The files, checksums and sizes in the manifest those of the content, unless [listed] has changed them.
     */
    fun files(listed: (MutableMap<String, Any?>) -> Unit = {}): MutableMap<String, ByteArray> {
        val files = linkedMapOf(
            "golden.json" to writeJson(goldens).toByteArray(),
            "labels.txt" to labelLines.toByteArray(),
            "vocab.txt" to vocabulary.toByteArray(),
            "model.onnx" to model,
        )
        manifest["files"] = files.map { (name, content) ->
            val facts = mapOf("sha256" to sumOf(content), "size_bytes" to content.size)
            linkedMapOf<String, Any?>("file" to name).also { it.putAll(facts) }
        }
        part("artifacts").putAll(mapOf("sha256" to sumOf(model), "size_bytes" to model.size))
        listed(manifest)
        files["manifest.json"] = writeJson(manifest).toByteArray()
        return files
    }

    fun write(folder: File): File {
        folder.mkdirs()
        for ((name, content) in files()) File(folder, name).writeBytes(content)
        return folder
    }

    fun open(): Bundle = openBundle(MemorySource(files()), FakeRuntime())
}

private fun golden(kind: TaskKind, pair: Boolean, tokenTypes: Boolean): MutableMap<String, Any?> {
    val ids = if (pair) listOf(2, 5, 3, 7, 3) else listOf(2, 5, 3)
    val logits = if (kind == TaskKind.REGRESSION) listOf(0.25) else listOf(-1.0, 2.0)
    val golden = linkedMapOf<String, Any?>("text" to "Food", "input_ids" to ids, "logits" to logits)
    golden["label"] = when (kind) {
        TaskKind.CLASSIFICATION -> "good"
        TaskKind.MULTI_LABEL -> listOf("good")
        TaskKind.REGRESSION -> 0.25
    }
    if (pair) golden["pair"] = "great"
    if (tokenTypes) golden["token_type_ids"] = if (pair) listOf(0, 0, 0, 1, 1) else listOf(0, 0, 0)
    return golden
}

internal fun sumOf(content: ByteArray): String = sha256(ByteBuffer.wrap(content))

/** A bundle in memory, as no app has it. */
internal class MemorySource(private val files: Map<String, ByteArray>) : BundleSource {
    private fun found(file: String): ByteArray =
        files[BundleFiles.check(file)] ?: throw BundleError.Missing("there is no $file: write it")

    override fun sizeBytes(file: String): Long = found(file).size.toLong()

    override fun read(file: String, maxBytes: Int): ByteArray = found(file)

    override fun map(file: String): ByteBuffer = ByteBuffer.wrap(found(file)).asReadOnlyBuffer()

    override fun path(file: String): String? = null
}

/** A runtime without native code, whose models answer by a function of the ids. */
internal class FakeRuntime(
    override val version: String = "1.29.0",
    override val name: String = "onnxruntime",
    override val target: Set<String> = linkedSetOf("onnx", "ort"),
    private val answer: (Encoding) -> FloatArray = { floatArrayOf(-1f, 2f) },
) : Runtime {
    override val needsPath = false
    var opened = 0
    var closed = 0

    override fun open(bundle: Bundle, threads: Int): Model {
        opened++
        return object : Model {
            override fun logits(encoding: Encoding): FloatArray = answer(encoding)

            override fun close() {
                closed++
            }
        }
    }
}

/** The [BundleError] that an action throws, of exactly this kind, with a message of one line. */
internal inline fun <reified E : BundleError> refusal(action: () -> Unit): E {
    try {
        action()
    } catch (error: BundleError) {
        if (error !is E) {
            throw AssertionError("$error instead of ${E::class.java.simpleName}", error)
        }
        val message = error.message!!
        if ('\n' in message || ": " !in message) {
            throw AssertionError("not one line with a next step: $message")
        }
        return error
    }
    throw AssertionError("nothing was refused, ${E::class.java.simpleName} was due")
}
