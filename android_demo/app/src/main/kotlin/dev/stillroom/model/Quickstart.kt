package dev.stillroom.model

// All that an app needs of this package, from a bundle to an answer:
//
//     val source = FolderSource(File(filesDir, "bundle"))      // or the AssetSource of ui/
//     val classifier = openClassifier(source, threads = 2)     // once, off the main thread
//     val answer = classifier.classify("What a lovely day")    // any thread, as often as you like
//     answer.labels                                            // ["positive"]
//     answer.probabilities                                     // [("negative", 0.01), ("positive", 0.99)]
//     classifier.close()                                       // when the screen that uses it goes

/**
 * Check a bundle and open its model with so many [threads] (the phone's fast cores, at most 4, are best).
 *
 * Reads every file once, for its checksum: call it off the main thread. Throws [BundleError], whose message
 * says in one line what is wrong and what to do about it.
 */
fun openClassifier(source: BundleSource, threads: Int): Classifier {
    val bundle = openBundle(source)
    return Classifier(bundle, runtime.open(bundle, threads))
}
