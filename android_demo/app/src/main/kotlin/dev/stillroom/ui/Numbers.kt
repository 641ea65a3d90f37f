package dev.stillroom.ui

import android.content.Context
import android.text.BidiFormatter
import android.text.format.Formatter
import dev.stillroom.demo.R
import dev.stillroom.model.GoldenReport
import java.text.NumberFormat
import java.util.Locale

/** Numbers and names as the user's language writes them. */
internal class Numbers(private val context: Context) {
    @Suppress("DEPRECATION") // `locales` exists from API 24; the first of them is this one
    private val locale: Locale = context.resources.configuration.locale
    private val bidi = BidiFormatter.getInstance(locale)

    /** At most so many [digits] after the point. */
    fun decimal(value: Double, digits: Int): String =
        NumberFormat.getNumberInstance(locale).apply { maximumFractionDigits = digits }.format(value)

    /** Milliseconds without their unit, such as 12.30. */
    fun time(ms: Double): String = exactly(TIME_DIGITS, NumberFormat.getNumberInstance(locale)).format(ms)

    /** A share of 0..1, such as 93.0%. */
    fun percent(share: Float): String =
        exactly(PERCENT_DIGITS, NumberFormat.getPercentInstance(locale)).format(share.toDouble())

    /** The same to be read out: a whole number without its sign. */
    fun spokenPercent(share: Float): String = decimal(share * 100.0, 0)

    fun bytes(count: Long): String = Formatter.formatShortFileSize(context, count)

    /** How the golden vectors compared, when all of them are equal; else null. */
    fun golden(report: GoldenReport?): String? = report?.takeIf { it.firstDifference == null }?.let {
        context.resources.getQuantityString(
            R.plurals.golden_equal, it.count, it.count, it.count,
            decimal(it.maxAbsError, ERROR_DIGITS), decimal(it.allowed, ERROR_DIGITS),
        )
    }

    /** A name in its own direction within a sentence of another. */
    fun name(text: String): String = bidi.unicodeWrap(text)

    private fun exactly(digits: Int, format: NumberFormat) = format.apply {
        minimumFractionDigits = digits
        maximumFractionDigits = digits
    }

    private companion object {
        const val TIME_DIGITS = 2
        const val PERCENT_DIGITS = 1
        const val ERROR_DIGITS = 4
    }
}
