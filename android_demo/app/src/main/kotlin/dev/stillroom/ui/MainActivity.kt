package dev.stillroom.ui

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.widget.TextView
import dev.stillroom.demo.R

/** The one activity: three screens in one layout, which draw what the [Session] holds. */
class MainActivity : Activity() {
    private lateinit var session: Session
    private var tab = 0

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        @Suppress("DEPRECATION") // without androidx's ViewModel, this carries an open model over a rotation
        session = lastNonConfigurationInstance as? Session ?: Session(this)
        val classify = ClassifyScreen(screen(0), session)
        val benchmark = BenchmarkScreen(screen(1), session, ::share, ::askWhereToSave)
        val bundle = BundleScreen(screen(2), session, ::askForBundle)
        session.changed = {
            classify.show()
            benchmark.show()
            bundle.show()
        }
        session.changed()
        for (index in TABS.indices) view(TABS[index]).setOnClickListener { show(index) }
        show(savedInstanceState?.getInt(TAB) ?: 0)
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState) // the texts in the fields are saved by their ids
        outState.putInt(TAB, tab)
    }

    @Deprecated("Without androidx, this is what carries an open model over a rotation")
    override fun onRetainNonConfigurationInstance(): Any = session

    override fun onDestroy() {
        session.changed = {}
        if (!isChangingConfigurations) session.close()
        super.onDestroy()
    }

    @Deprecated("Without androidx, this is how an activity answers")
    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        val address = data?.data
        if (resultCode != RESULT_OK || address == null) return
        when (requestCode) {
            PICK -> session.pick(address)
            SAVE -> session.save(address)
        }
    }

    private fun view(id: Int): View = findViewById(id)

    private fun screen(index: Int): View = view(SCREENS[index])

    private fun show(index: Int) {
        tab = index
        for (other in TABS.indices) {
            view(TABS[other]).isSelected = other == index
            screen(other).shown(other == index)
        }
    }

    private fun askForBundle() = go(document(Intent.ACTION_OPEN_DOCUMENT, "application/zip"), PICK)

    private fun askWhereToSave(fileName: String) {
        val create = document(Intent.ACTION_CREATE_DOCUMENT, "application/json")
        go(create.putExtra(Intent.EXTRA_TITLE, fileName), SAVE)
    }

    private fun document(action: String, type: String): Intent =
        Intent(action).addCategory(Intent.CATEGORY_OPENABLE).setType(type)

    /** As text, so that no other app gets access to this one's files. An intent holds only so much of it. */
    private fun share(json: String) {
        if (json.length > MOST_SHARED_CHARS) {
            screen(1).find<TextView>(R.id.saved).show(getString(R.string.bench_too_long))
            return
        }
        val send = Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, json)
        go(Intent.createChooser(send, getString(R.string.bench_share)), SHARE)
    }

    private fun go(intent: Intent, code: Int) = try {
        @Suppress("DEPRECATION")
        startActivityForResult(intent, code)
    } catch (nothing: ActivityNotFoundException) { // a device without a document picker
        session.failed(nothing)
    }

    private companion object {
        const val TAB = "tab"
        const val PICK = 1
        const val SAVE = 2
        const val SHARE = 3
        const val MOST_SHARED_CHARS = 100_000
        val TABS = intArrayOf(R.id.tab_classify, R.id.tab_benchmark, R.id.tab_bundle)
        val SCREENS = intArrayOf(R.id.screen_classify, R.id.screen_benchmark, R.id.screen_bundle)
    }
}
