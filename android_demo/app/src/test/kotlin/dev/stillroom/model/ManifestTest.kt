package dev.stillroom.model

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class ManifestTest {
    private fun read(runtime: Runtime = FakeRuntime(), change: (TestBundle) -> Unit): Manifest {
        val bundle = TestBundle()
        return readManifest(bundle.files { change(bundle) }.getValue("manifest.json"), runtime)
    }

    private fun entry(bundle: TestBundle, name: String): MutableMap<String, Any?> {
        @Suppress("UNCHECKED_CAST")
        val files = bundle.manifest["files"] as List<MutableMap<String, Any?>>
        return files.first { it["file"] == name }
    }

    @Test
    fun everyFieldIsRead() {
        val manifest = read { it.part("artifacts")["lengths"] = listOf(4, 8.0) }
        assertEquals("a test", manifest.name)
        assertEquals(TaskKind.CLASSIFICATION, manifest.task.kind)
        assertEquals(listOf("bad", "good"), manifest.task.labels)
        assertEquals(listOf("input_ids", "attention_mask"), manifest.task.inputs)
        assertEquals(8, manifest.task.maxLength)
        assertEquals(listOf(4, 8), manifest.model.lengths)
        assertEquals(64L, manifest.model.sizeBytes)
        assertEquals(mapOf("[PAD]" to 0, "[UNK]" to 1, "[CLS]" to 2, "[SEP]" to 3), manifest.wordPiece.added)
        assertEquals(0.05, manifest.goldenMaxAbsError, 0.0)
        assertNull(manifest.notice)
    }

    @Test
    fun aFieldOfAnotherTypeOrRangeIsNamed() {
        val changes = mapOf<String, (TestBundle) -> Unit>(
            "name" to { it.manifest["name"] = 7 },
            "lineage" to { it.manifest["lineage"] = "x" },
            "schema_version" to { it.manifest["schema_version"] = "3" },
            "schema_version " to { it.manifest.remove("schema_version") },
            "extra" to { it.manifest["extra"] = 1 },
            "pad_id" to { it.manifest["pad_id"] = -1 },
            "task.labels" to { it.part("task")["labels"] = listOf("bad", 1) },
            "1 labels" to { it.part("task")["labels"] = listOf("bad") },
            "task.max_length" to { it.part("task")["max_length"] = 8193 },
            "max_length is" to { it.part("task")["max_length"] = 8.5 },
            "task.inputs" to { it.part("task")["inputs"] = listOf("attention_mask", "input_ids") },
            "task.kind" to { it.part("task")["kind"] = "poetry" },
            "task.metric" to { it.part("task")["metric"] = "pearson" },
            "task.pair" to { it.part("task")["pair"] = "no" },
            "wordpiece has no prefix" to { it.part("tokenizer", "wordpiece").remove("prefix") },
            "wordpiece.lowercase" to { it.part("tokenizer", "wordpiece")["lowercase"] = 1 },
            "max_word_chars" to { it.part("tokenizer", "wordpiece")["max_word_chars"] = 0 },
            "wordpiece.added" to { it.part("tokenizer", "wordpiece")["added"] = mapOf("" to 1) },
            "added.[X]" to { it.part("tokenizer", "wordpiece")["added"] = mapOf("[X]" to "1") },
            "no model file" to { it.manifest["artifacts"] = emptyList<Any>() },
            "artifacts[0].target" to { it.part("artifacts")["target"] = "tflite" },
            "artifacts[0].scheme" to { it.part("artifacts")["scheme"] = "int2" },
            "artifacts[0].lengths" to { it.part("artifacts")["lengths"] = listOf(8, 8) },
            "at most 4 tokens" to { it.part("artifacts")["lengths"] = listOf(4) },
            "contradicts itself" to { it.part("artifacts")["sha256"] = "1".repeat(64) },
            "golden.file" to { it.part("golden")["file"] = "labels.txt" },
            "golden.count" to { it.part("golden")["count"] = 0 },
            "golden.max_abs_error" to { it.part("golden")["max_abs_error"] = -0.1 },
            "golden.json 2 times" to { entry(it, "labels.txt")["file"] = "golden.json" },
            "does not list" to { entry(it, "labels.txt")["file"] = "other.txt" },
            "sha256" to { entry(it, "labels.txt")["sha256"] = "A".repeat(64) },
            "size_bytes" to { entry(it, "labels.txt")["size_bytes"] = 0 },
        )
        for ((said, change) in changes) {
            val error = refusal<BundleError.Malformed> { read(change = change) }
            assertTrue("$said: ${error.message}", said.trim() in error.message!!)
        }
    }

    @Test
    fun otherKindsOfBundlesAreToldApart() {
        refusal<BundleError.Unsupported> { read { it.manifest["schema_version"] = 4 } }
        refusal<BundleError.Unsupported> { read { it.part("tokenizer")["kind"] = "Unigram" } }
        refusal<BundleError.Unsupported> { read { it.part("tokenizer")["file"] = "tokenizer.json" } }
        refusal<BundleError.TooLarge> { read { entry(it, "labels.txt")["size_bytes"] = 4294967297 } }
        refusal<BundleError.TooLarge> { read { it.manifest["files"] = List(17) { emptyMap<String, Any>() } } }
    }

    @Test
    fun namesThatLeadElsewhereAreRefused() {
        val names = listOf(
            "../labels.txt", "/etc/passwd", "a/b", "a\\b", "C:labels", "", ".hidden", "a\u0000b", "a\n", "é",
            "x".repeat(101),
        )
        for (name in names) {
            refusal<BundleError.PathEscape> { read { entry(it, "labels.txt")["file"] = name } }
            refusal<BundleError.PathEscape> { read { it.part("artifacts")["file"] = name } }
        }
    }

    @Test
    fun theRuntimeMustBeTheOneTheModelWasMadeFor() {
        fun made(target: String, name: String, version: String): (TestBundle) -> Unit = {
            it.part("artifacts")["target"] = target
            it.part("artifacts", "runtime").putAll(mapOf("name" to name, "version" to version))
        }
        refusal<BundleError.WrongRuntime> { read(change = made("executorch", "executorch", "1.4.1")) }
        refusal<BundleError.WrongRuntime> { read(change = made("onnx", "torch", "1.29.0")) }
        for (version in listOf("2.0.0", "0.9", "newest", "")) {
            refusal<BundleError.WrongRuntime> { read(change = made("onnx", "onnxruntime", version)) }
        }
        assertEquals(
            "model.onnx was made for onnxruntime 1.32.0, this app has the older 1.29.0: " +
                "trust it if the golden vectors agree",
            read(change = made("onnx", "onnxruntime", "1.32.0")).notice,
        )
        for (version in listOf("1.29", "1.28.9", "1.29.0+cpu", "1")) {
            assertNull(version, read(change = made("ort", "onnxruntime", version)).notice)
        }
        // Compared by number: 1.9 is older than 1.29.
        assertNull(read(change = made("onnx", "onnxruntime", "1.9.9")).notice)
    }

    @Test
    fun theModelOfThisRuntimeIsChosenAmongOthers() {
        val manifest = read { bundle ->
            @Suppress("UNCHECKED_CAST")
            val models = bundle.manifest["artifacts"] as MutableList<Map<String, Any?>>
            models.add(0, models[0] + mapOf("target" to "executorch", "file" to "model.pte"))
        }
        assertEquals("model.onnx", manifest.model.file)
    }
}
