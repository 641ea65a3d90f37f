package dev.stillroom.model

import dev.stillroom.tokenization.WordPieceOptions

private const val SCHEMA_VERSION = 3L
private const val LARGEST_TOKEN_ID = 10_000_000L
private val FIELDS = setOf(
    "schema_version", "stillroom_version", "name", "task", "pad_id", "tokenizer", "artifacts", "golden",
    "files", "lineage",
)
private val TASK_FIELDS = setOf("labels", "max_length", "inputs", "pair", "kind", "metric")
private val WORD_PIECE_FIELDS = setOf(
    "lowercase", "strip_accents", "clean_text", "handle_chinese_chars", "prefix", "max_word_chars",
    "unknown_id", "cls_id", "sep_id", "added",
)
private val ARTIFACT_FIELDS = setOf(
    "file", "target", "scheme", "sha256", "size_bytes", "parameters", "source_sha256", "lengths",
    "runtime", "proof", "differs", "tool_versions", "tolerance", "portable", "portable_evidence",
)
private val TARGETS = setOf("onnx", "ort", "torchscript", "executorch", "executorch_coreml", "coreml")
private val SCHEMES = setOf(
    "fp32", "fp16", "int8-dynamic", "int8-weights", "int8-static", "int4", "palette6", "palette4",
)
private val SHA256 = Regex("[0-9a-f]{64}")

/**
 * Parse and check manifest.json for a runtime.
 *
 * Throws [BundleError.Malformed] where it is not as its schema says, [BundleError.Unsupported] where it is of
 * another version, and [BundleError.WrongRuntime] when none of its model files is for this runtime.
 */
internal fun readManifest(bytes: ByteArray, on: Runtime): Manifest {
    val fields = JsonFields(parsed(bytes, BundleFiles.MANIFEST), "${BundleFiles.MANIFEST}:")
    val version = fields.whole("schema_version", Long.MIN_VALUE..Long.MAX_VALUE)
    if (version != SCHEMA_VERSION) {
        throw BundleError.Unsupported(
            "the bundle has manifest schema $version, this app reads $SCHEMA_VERSION: " +
                "use an app and a bundle of one stillroom release",
        )
    }
    fields.only(FIELDS)
    fields.text("stillroom_version", 50)
    fields.child("lineage")
    val task = readTask(fields.child("task"))
    val wordPiece = readTokenizer(fields.child("tokenizer"))
    val model = chooseModel(fields.children("artifacts").map(::readArtifact), on)
    if (model.lengths.isNotEmpty() && model.lengths.last() < task.maxLength) {
        throw BundleError.Malformed(
            "${model.file} takes at most ${model.lengths.last()} tokens, the task has " +
                "${task.maxLength}: $MAKE_AGAIN",
        )
    }
    val golden = fields.child("golden")
    golden.only(setOf("file", "count", "max_abs_error"))
    golden.oneOf("file", setOf(BundleFiles.GOLDEN))
    if (golden.number("max_abs_error") < 0) golden.wrong("max_abs_error", "0 or more")
    return Manifest(
        name = fields.text("name", 200),
        task = task,
        padId = fields.whole("pad_id", 0..LARGEST_TOKEN_ID).toInt(),
        wordPiece = wordPiece,
        model = model,
        goldenCount = golden.whole("count", 1..100_000L).toInt(),
        goldenMaxAbsError = golden.number("max_abs_error"),
        files = readFiles(fields, model),
        notice = olderNotice(model, on),
    )
}

/** The JSON value of a file of the bundle. Throws [BundleError.Malformed]. */
internal fun parsed(bytes: ByteArray, file: String): Any? = try {
    parseJson(bytes)
} catch (error: JsonError) {
    throw BundleError.Malformed("$file is not JSON that is read here, ${error.message}: $MAKE_AGAIN")
}

private fun readTask(fields: JsonFields): Task {
    fields.only(TASK_FIELDS)
    val id = fields.oneOf("kind", TaskKind.values().map { it.id })
    val kind = TaskKind.values().first { it.id == id }
    fields.oneOf("metric", setOf(kind.metric))
    val labels = fields.texts("labels", 1000)
    if (labels.size !in kind.labelCounts) {
        throw BundleError.Malformed(
            "a $id bundle names ${labels.size} labels, wanted ${kind.labelCounts}: $MAKE_AGAIN",
        )
    }
    val inputs = fields.texts("inputs", 100)
    if (inputs != Task.INPUTS && inputs != Task.INPUTS.take(2)) {
        fields.wrong("inputs", "${Task.INPUTS}, the last one optional")
    }
    val pair = fields.flag("pair")
    val fewestTokens = if (pair) 3L else 2L // the special ones
    return Task(
        kind = kind,
        labels = labels,
        maxLength = fields.whole("max_length", fewestTokens..Limits.TOKENS).toInt(),
        tokenTypes = inputs.size == Task.INPUTS.size,
        pair = pair,
    )
}

private fun readTokenizer(fields: JsonFields): WordPieceOptions {
    val kind = fields.oneOf("kind", setOf("WordPiece", "Unigram", "BPE", "WordLevel"))
    val file = fields.oneOf("file", setOf("tokenizer.json", BundleFiles.VOCABULARY))
    if (kind != "WordPiece" || file != BundleFiles.VOCABULARY) {
        throw BundleError.Unsupported(
            "the bundle's tokenizer is $kind in $file, this app has WordPiece in " +
                "${BundleFiles.VOCABULARY}: make the bundle of a BERT with stillroom bundle --for android",
        )
    }
    fields.only(setOf("file", "kind", "wordpiece"))
    val settings = fields.child("wordpiece")
    settings.only(WORD_PIECE_FIELDS)
    val added = settings.child("added")
    val names = added.keys
    if (names.size > 10_000 || names.any { it.isEmpty() || it.codePointCount(0, it.length) > 1000 }) {
        settings.wrong("added", "at most 10000 tokens of 1 to 1000 characters")
    }
    return WordPieceOptions(
        lowercase = settings.flag("lowercase"),
        stripAccents = settings.flag("strip_accents"),
        cleanText = settings.flag("clean_text"),
        handleChineseChars = settings.flag("handle_chinese_chars"),
        prefix = settings.text("prefix", 100),
        maxWordChars = settings.whole("max_word_chars", 1..10_000L).toInt(),
        unknownId = settings.whole("unknown_id", 0..LARGEST_TOKEN_ID).toInt(),
        clsId = settings.whole("cls_id", 0..LARGEST_TOKEN_ID).toInt(),
        sepId = settings.whole("sep_id", 0..LARGEST_TOKEN_ID).toInt(),
        added = names.associateWith { added.whole(it, 0..LARGEST_TOKEN_ID).toInt() },
    )
}

private fun readArtifact(fields: JsonFields): ModelFile {
    fields.only(ARTIFACT_FIELDS)
    val runtime = fields.child("runtime")
    runtime.only(setOf("name", "version"))
    val lengths = fields.wholes("lengths", 2..Limits.TOKENS)
    if (lengths.size > 128 || lengths.zipWithNext().any { (one, next) -> one >= next }) {
        fields.wrong("lengths", "at most 128 rising numbers")
    }
    return ModelFile(
        file = BundleFiles.check(fields.text("file", 1000)),
        target = fields.oneOf("target", TARGETS),
        scheme = fields.oneOf("scheme", SCHEMES),
        sha256 = sha256(fields),
        sizeBytes = sizeBytes(fields),
        lengths = lengths,
        runtimeName = runtime.text("name", 100),
        runtimeVersion = runtime.text("version", 100),
    )
}

private fun readFiles(fields: JsonFields, model: ModelFile): List<ListedFile> {
    val listed = fields.list("files").size
    if (listed > Limits.FILES) {
        throw BundleError.TooLarge(
            "the bundle has $listed files, at most ${Limits.FILES} are read: $MAKE_AGAIN",
        )
    }
    val files = fields.children("files").map { entry ->
        entry.only(setOf("file", "sha256", "size_bytes"))
        ListedFile(BundleFiles.check(entry.text("file", 1000)), sha256(entry), sizeBytes(entry))
    }
    val names = files.map { it.file }
    names.groupingBy { it }.eachCount().entries.firstOrNull { it.value > 1 }?.let {
        throw BundleError.Malformed(
            "manifest.json lists ${it.key} ${it.value} times, wanted once: $MAKE_AGAIN",
        )
    }
    for (name in listOf(BundleFiles.VOCABULARY, BundleFiles.LABELS, BundleFiles.GOLDEN, model.file)) {
        if (name !in names) {
            throw BundleError.Malformed(
                "manifest.json uses $name but does not list it under files: $MAKE_AGAIN",
            )
        }
    }
    val same = files.first { it.file == model.file }
    if (same.sha256 != model.sha256 || same.sizeBytes != model.sizeBytes) {
        throw BundleError.Malformed("manifest.json contradicts itself about ${model.file}: $MAKE_AGAIN")
    }
    return files
}

private fun sha256(fields: JsonFields): String {
    val found = fields.text("sha256", 1000)
    if (!SHA256.matches(found)) fields.wrong("sha256", "64 hexadecimal digits")
    return found
}

private fun sizeBytes(fields: JsonFields): Long {
    val found = fields.whole("size_bytes", 1..Long.MAX_VALUE)
    if (found > Limits.MODEL_BYTES) {
        throw BundleError.TooLarge(
            "a file of $found bytes, at most ${Limits.MODEL_BYTES} are read: $MAKE_AGAIN",
        )
    }
    return found
}
