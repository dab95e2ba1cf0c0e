//! Words that come from outside, by way of an error: the names in them are a spec's, an image's or a program's.
//!
//! They are kept with an instance, in each of its events and in the journal, and go between agent and holder in packets of
//! a bounded size. So they are bounded, as they are encoded there.

use std::fmt::Display;

/// Bytes of words in JSON.
pub const WORDS_BYTES_MAX: usize = 512;
/// Where more was.
const CUT: char = '…';

/// The words, or as many of them as fit and an ellipsis.
///
/// ```
/// # use celda::cell::words::{WORDS_BYTES_MAX, bounded};
/// assert_eq!(bounded(&"no such file"), "no such file");
/// let hostile = bounded(&"\u{1}".repeat(1 << 20));
/// assert!(serde_json::to_vec(&hostile).unwrap().len() <= WORDS_BYTES_MAX);
/// ```
pub fn bounded(words: &dyn Display) -> String {
    let mut text = words.to_string();
    let limit = WORDS_BYTES_MAX - 2; // its quotes
    let (mut bytes, mut cut_at) = (0, 0);
    for (at, letter) in text.char_indices() {
        bytes += encoded_bytes(letter);
        if bytes + CUT.len_utf8() <= limit {
            cut_at = at + letter.len_utf8();
        }
        if bytes > limit {
            text.truncate(cut_at);
            text.push(CUT);
            return text;
        }
    }
    text
}

/// Bytes of a character in a JSON string, as RFC 8259, section 7, has it and serde_json writes it.
fn encoded_bytes(letter: char) -> usize {
    match letter {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => letter.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str) -> usize {
        serde_json::to_vec(text).unwrap().len()
    }

    #[test]
    fn words_are_cut_between_characters() {
        for letter in ["a", "ü", "😀", "\"", "\u{1}", "\n"] {
            let cut = bounded(&letter.repeat(WORDS_BYTES_MAX));
            assert!(cut.ends_with(CUT) && cut.starts_with(letter), "{cut}");
            // As long as can be: not even one more would have fitted.
            let room = WORDS_BYTES_MAX - encoded(&cut);
            assert!(room < encoded(letter) - 2, "{room} bytes unused for {letter:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_they_are_they_fit_and_short_ones_are_whole(words in any::<String>(), times in 1_usize..40) {
            let words = words.repeat(times);
            let cut = bounded(&words);
            prop_assert!(encoded(&cut) <= WORDS_BYTES_MAX);
            if encoded(&words) <= WORDS_BYTES_MAX {
                prop_assert_eq!(cut, words);
            }
        }
    }
}
