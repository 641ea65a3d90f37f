package dev.stillroom.ui

import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.LinearLayout
import android.widget.TextView
import dev.stillroom.demo.R

/** Cast by hand: findViewById became generic with API 26, and this compiles against older stubs too. */
@Suppress("UNCHECKED_CAST")
internal fun <T : View> View.find(id: Int): T = findViewById(id) as T

internal fun View.shown(yes: Boolean) {
    visibility = if (yes) View.VISIBLE else View.GONE
}

/** Show a text, or nothing for null. An unchanged one is left alone: TalkBack would read it out again. */
internal fun TextView.show(value: CharSequence?) {
    if (value != null && value.toString() != text.toString()) text = value
    shown(value != null)
}

/** How much of a bar is filled, 0..1. */
internal fun View.fill(share: Float) {
    layoutParams = (layoutParams as LinearLayout.LayoutParams).apply { weight = share }
}

/** A label, its probability and a bar, read out as "positive, 93 percent". */
internal fun ViewGroup.addBar(label: String, share: Float, numbers: Numbers) {
    val row = LayoutInflater.from(context).inflate(R.layout.row_bar, this, false)
    row.find<TextView>(R.id.bar_label).text = label
    row.find<TextView>(R.id.bar_value).text = numbers.percent(share)
    row.find<View>(R.id.bar_fill).fill(share)
    row.contentDescription = context.getString(R.string.bar_description, label, numbers.spokenPercent(share))
    addView(row)
}

/** A name and its value, read out as one. */
internal fun ViewGroup.addFact(name: Int, value: String) {
    val row = LayoutInflater.from(context).inflate(R.layout.row_fact, this, false)
    row.find<TextView>(R.id.fact_name).setText(name)
    row.find<TextView>(R.id.fact_value).text = value
    row.contentDescription = context.getString(name) + context.getString(R.string.list_separator) + value
    addView(row)
}
