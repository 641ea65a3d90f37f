package dev.stillroom.tokenization

/** Finds added tokens ([MASK]) in a text as it comes: the leftmost, and of several there the longest. */
internal class AddedTokens(added: Map<String, Int>) {
    private val tokens = added.keys.filter { it.isNotEmpty() }.sortedByDescending { it.length }.toTypedArray()
    private val ids = IntArray(tokens.size) { added.getValue(tokens[it]) }
    private val starts = BooleanArray(ASCII) // by first char; the last stands for all beyond ASCII

    /** Of the token that [find] found last. */
    var id = 0
        private set

    /** Where the token that [find] found last ends. */
    var end = 0
        private set

    init {
        for (token in tokens) starts[minOf(token[0].code, ASCII - 1)] = true
    }

    /** Where the next added token of [text] begins, at [from] or later; or text.length when there is none. */
    fun find(text: String, from: Int): Int {
        for (at in from until text.length) {
            if (starts[minOf(text[at].code, ASCII - 1)] && matches(text, at)) return at
        }
        return text.length
    }

    private fun matches(text: String, at: Int): Boolean {
        for (index in tokens.indices) {
            if (text.startsWith(tokens[index], at)) {
                id = ids[index]
                end = at + tokens[index].length
                return true
            }
        }
        return false
    }

    private companion object {
        const val ASCII = 128
    }
}
