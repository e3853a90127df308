"""Makes final files of sealed rounds, in a thread of the parent."""
