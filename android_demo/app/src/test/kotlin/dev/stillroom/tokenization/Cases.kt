package dev.stillroom.tokenization

import java.io.BufferedInputStream
import java.io.BufferedOutputStream
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File

/** A tokenizer and the texts it is to encode, each alone or with a pair. */
class Cases(val tokenizer: Tokenizer, val texts: List<Pair<String, String?>>)

/** Reads what docs/experiments/kotlin_tokenizer.py wrote. A string is its length and UTF-16, to hold any. */
fun readCases(file: File): List<Cases> = DataInputStream(BufferedInputStream(file.inputStream())).use {
    List(it.readInt()) { _ -> it.readCases() }
}

/** Writes how each text of a file of [readCases] is encoded. Arguments: the file, and the one to write. */
fun main(args: Array<String>) {
    DataOutputStream(BufferedOutputStream(File(args[1]).outputStream())).use { output ->
        for (cases in readCases(File(args[0]))) {
            for ((text, pair) in cases.texts) {
                val encoding = cases.tokenizer.encode(text, pair)
                output.writeInt(encoding.ids.size)
                encoding.ids.forEach(output::writeInt)
                check(encoding.typeIds.size == encoding.ids.size) { "other type ids than ids: $text" }
                encoding.typeIds.forEach(output::writeInt)
            }
        }
    }
}

private fun DataInputStream.readCases(): Cases {
    val vocabulary = Vocabulary.read(ByteArray(readInt()).also(::readFully))
    val maxLength = readInt()
    val tokenizer = Tokenizer(vocabulary, readOptions(), maxLength)
    return Cases(tokenizer, List(readInt()) { readText() to if (readBoolean()) readText() else null })
}

private fun DataInputStream.readOptions() = WordPieceOptions(
    lowercase = readBoolean(),
    stripAccents = readBoolean(),
    cleanText = readBoolean(),
    handleChineseChars = readBoolean(),
    prefix = readText(),
    maxWordChars = readInt(),
    unknownId = readInt(),
    clsId = readInt(),
    sepId = readInt(),
    added = List(readInt()) { readText() to readInt() }.toMap(),
)

private fun DataInputStream.readText() = String(CharArray(readInt()) { readChar() })
