package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.LongBuffer

/**
 * The int64 inputs of a model in direct buffers that native code reads as they are, used for one text after
 * another.
 *
 * A text shorter than the next of the model file's lengths is padded to it: the pad token behind, which the
 * mask (0 there) hides.
 */
internal class ModelInputs(private val manifest: Manifest) {
    private val longest = manifest.model.lengths.lastOrNull() ?: manifest.task.maxLength

    /** Input name -> buffer, in calling order. After [fill] each holds as many numbers as that returned. */
    val buffers: Map<String, LongBuffer> = manifest.task.inputs.associateWith {
        ByteBuffer.allocateDirect(longest * Long.SIZE_BYTES).order(ByteOrder.nativeOrder()).asLongBuffer()
    }

    /** Fill the buffers with one text; returns the length of the input in tokens. */
    fun fill(encoding: Encoding): Int {
        val tokens = encoding.ids.size
        val lengths = manifest.model.lengths
        val length = if (lengths.isEmpty()) tokens else lengths.firstOrNull { it >= tokens } ?: longest + 1
        require(length in 1..longest) { "$tokens tokens, the model takes 1 to $longest" }
        for ((name, buffer) in buffers) {
            buffer.clear()
            for (at in 0 until length) {
                val inside = at < tokens
                val value = when (name) {
                    "input_ids" -> if (inside) encoding.ids[at] else manifest.padId
                    "attention_mask" -> if (inside) 1 else 0
                    else -> if (inside) encoding.typeIds[at] else 0
                }
                buffer.put(value.toLong())
            }
            buffer.flip()
        }
        return length
    }
}
