//! Brains that know of machines and an app, and what they say about it.
