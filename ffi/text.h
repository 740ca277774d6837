// Host-side text: hashing n-grams and words to feature ids, parsing sparse text files.
