package dev.stillroom.ui

import android.content.Context
import android.view.View
import android.view.ViewGroup
import android.view.inputmethod.InputMethodManager
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import dev.stillroom.demo.R
import dev.stillroom.model.Answer
import dev.stillroom.model.Bundle

/** Text in, label with probabilities out. */
internal class ClassifyScreen(private val root: View, private val session: Session) {
    private val context: Context = root.context
    private val numbers = Numbers(context)
    private val text = root.find<EditText>(R.id.text)
    private val pair = root.find<EditText>(R.id.pair)
    private val error = ErrorPanel(root.find(R.id.error))
    private val goldenError = ErrorPanel(root.find(R.id.golden_error))
    private var drawn: Answer? = null
    private var textMissing = false

    init {
        root.find<Button>(R.id.classify).setOnClickListener { classify() }
    }

    /** Draw what the session holds. */
    fun show() {
        val bundle = session.bundle
        val answer = session.answer
        error.show(session.failure)
        goldenError.show(session.golden)
        root.find<View>(R.id.loading).shown(session.doing != null)
        session.doing?.let { root.find<TextView>(R.id.loading_text).show(context.getString(it.text)) }
        root.find<View>(R.id.form).shown(bundle != null)
        root.find<Button>(R.id.classify).isEnabled = session.doing == null
        root.find<TextView>(R.id.hint).show(hint(bundle, answer)?.let(context::getString))
        root.find<View>(R.id.result).shown(bundle != null && answer != null)
        root.find<TextView>(R.id.golden).show(numbers.golden(session.golden))
        if (bundle == null) return
        val pairs = bundle.manifest.task.pair
        root.find<View>(R.id.pair_form).shown(pairs)
        val label = if (pairs) R.string.text_label_first else R.string.text_label
        root.find<TextView>(R.id.text_label).setText(label)
        if (answer != null && answer !== drawn) draw(bundle, answer)
        drawn = answer
    }

    private fun classify() {
        val pairs = session.bundle?.manifest?.task?.pair ?: return
        textMissing = text.text.isBlank() || pairs && pair.text.isBlank()
        if (textMissing) return show()
        val keyboard = context.getSystemService(Context.INPUT_METHOD_SERVICE) as InputMethodManager
        keyboard.hideSoftInputFromWindow(root.windowToken, 0) // the answer is below it
        session.classify(text.text.toString(), if (pairs) pair.text.toString() else null)
    }

    private fun hint(bundle: Bundle?, answer: Answer?): Int? = when {
        bundle == null || session.doing != null -> null
        textMissing -> R.string.classify_type_first
        answer == null -> R.string.classify_empty
        else -> null
    }

    private fun draw(bundle: Bundle, answer: Answer) {
        val separator = context.getString(R.string.list_separator)
        val headline = root.find<TextView>(R.id.headline)
        val score = answer.score?.let { numbers.decimal(it.toDouble(), SCORE_DIGITS) }
        val best = answer.probabilities.sortedByDescending { it.second }
        val chosen = answer.labels.toSet()
        headline.text = when {
            score != null -> context.getString(R.string.answer_score, score)
            chosen.isEmpty() -> context.getString(R.string.answer_none)
            else -> answer.labels.take(MOST_BARS).joinToString(separator)
        }
        headline.contentDescription = if (chosen.isEmpty()) headline.text else {
            best.filter { it.first in chosen }.take(MOST_BARS).joinToString(separator) { (label, share) ->
                context.getString(R.string.bar_description, label, numbers.spokenPercent(share))
            }
        }
        val bars = root.find<ViewGroup>(R.id.bars)
        bars.removeAllViews()
        for ((label, share) in best.take(MOST_BARS)) bars.addBar(label, share, numbers)
        val more = context.getString(R.string.shown_of, MOST_BARS, best.size).takeIf { best.size > MOST_BARS }
        root.find<TextView>(R.id.more_labels).show(more)
        root.find<TextView>(R.id.timing).text = context.resources.getQuantityString(
            R.plurals.timing, answer.tokens, answer.tokens,
            numbers.time(answer.tokenizeMs), numbers.time(answer.inferenceMs),
        )
        val model = bundle.manifest.model
        root.find<TextView>(R.id.model_line).text = context.getString(
            R.string.model_line,
            numbers.name(bundle.manifest.name), numbers.name(model.scheme), numbers.bytes(model.sizeBytes),
        )
    }

    private companion object {
        const val MOST_BARS = 20 // a task may have a hundred thousand labels
        const val SCORE_DIGITS = 3
    }
}
