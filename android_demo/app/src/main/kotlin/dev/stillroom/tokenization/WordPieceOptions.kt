package dev.stillroom.tokenization

/**
 * How a model wants its text tokenized: `tokenizer.wordpiece` of a bundle's manifest.json, by the same names.
 *
 * @property lowercase every character to its lower case
 * @property stripAccents NFD, then without nonspacing marks: é becomes e
 * @property cleanText without control characters
 * @property handleChineseChars each Chinese character is a word
 * @property prefix what a piece inside a word begins with in the vocabulary: ##
 * @property maxWordChars a word of more code points becomes the unknown token
 * @property added tokens that are matched in the text as it comes, before all else: [MASK]
 */
class WordPieceOptions(
    val lowercase: Boolean,
    val stripAccents: Boolean,
    val cleanText: Boolean,
    val handleChineseChars: Boolean,
    val prefix: String,
    val maxWordChars: Int,
    val unknownId: Int,
    val clsId: Int,
    val sepId: Int,
    val added: Map<String, Int>,
)
