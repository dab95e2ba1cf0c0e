//! Rust source with everything that is not code blanked out, so that plain text search is right about it.
//!
//! ```text
//! let a = "un{safe"; // why     ->     let a = "       ";
//! ```
//! Comments, the insides of string and character literals, and items under `#[cfg(test)]` become spaces; line ends stay,
//! so line numbers are those of the file.

/// One function found in a source.
pub(crate) struct Function {
    pub(crate) name: String,
    /// Where `fn` stands, counted from 1.
    pub(crate) line: usize,
    /// From `fn` to the closing brace, both included.
    pub(crate) lines_count: usize,
    /// Whether `#[test]` stands in the lines above it.
    pub(crate) is_test: bool,
}

/// Blanked source.
pub(crate) struct Source {
    code: String,
    test_lines_count: usize,
    lines_count: usize,
}

impl Source {
    /// Blanks `text`.
    pub(crate) fn blank(text: &str) -> Self {
        let mut code = blank_literals(text.as_bytes());
        let mut test_lines_count = 0;
        while let Some(at) = find(&code, b"#[cfg(test)]", 0) {
            let end = item_end(&code, at);
            test_lines_count += code[at..end].iter().filter(|byte| **byte == b'\n').count() + 1;
            code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        let code = String::from_utf8(code).expect("blanking writes only ASCII over whole characters");
        Self { code, test_lines_count, lines_count: text.lines().count() }
    }

    /// Lines of the file that are no test module.
    pub(crate) fn code_lines_count(&self) -> usize {
        self.lines_count.saturating_sub(self.test_lines_count)
    }

    /// The blanked lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.code.lines()
    }

    /// Every `fn` with a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
                continue;
            }
            let rest = &self.code[at + 3..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                continue; // A function type, `fn (…)`.
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let lines_count = self.code[at..item_end(bytes, at)].matches('\n').count() + 1;
            let above: Vec<&str> = self.code.lines().take(line - 1).collect();
            let is_test = above.iter().rev().take(3).any(|line| line.contains("#[test]"));
            functions.push(Function { name, line, lines_count, is_test });
        }
        functions
    }
}

fn find(code: &[u8], what: &[u8], from: usize) -> Option<usize> {
    code[from..].windows(what.len()).position(|window| window == what).map(|at| at + from)
}

/// The end of the item that starts at `at`: its closing brace, or the `;` that ends it before any brace opens.
fn item_end(code: &[u8], at: usize) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (offset, byte) in code[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return at + offset + 1,
            b'}' => braces -= 1,
            b';' if braces == 0 && brackets == 0 => return at + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// What the scanner is inside of.
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

fn blank_literals(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut state = State::Code;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (taken, shown, next) = step(&state, rest, at > 0 && is_name(text[at - 1]));
        for (offset, byte) in rest[..taken].iter().enumerate() {
            out.push(if *byte == b'\n' || (shown && offset < taken) { *byte } else { b' ' });
        }
        state = next.unwrap_or(state);
        at += taken;
    }
    out
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How many bytes of `rest` belong together, whether they are code, and the state after them if it changes.
fn step(state: &State, rest: &[u8], after_name: bool) -> (usize, bool, Option<State>) {
    match state {
        State::Code if rest.starts_with(b"//") => (2, false, Some(State::LineComment)),
        State::Code if rest.starts_with(b"/*") => (2, false, Some(State::BlockComment(1))),
        State::Code if rest[0] == b'"' => (1, true, Some(State::Text)),
        State::Code if rest[0] == b'r' && !after_name => match raw_hashes(&rest[1..]) {
            Some(hashes) => (2 + hashes, false, Some(State::RawText(hashes))),
            None => (1, true, None),
        },
        State::Code if rest.starts_with(b"br") && !after_name && raw_hashes(&rest[2..]).is_some() => {
            (1, true, None)
        }
        State::Code if rest[0] == b'\'' => {
            (character_len(rest).unwrap_or(1), character_len(rest).is_none(), None)
        }
        State::Code => (1, true, None),
        State::LineComment => (1, false, (rest[0] == b'\n').then_some(State::Code)),
        State::BlockComment(depth) if rest.starts_with(b"*/") => {
            (2, false, Some(if *depth == 1 { State::Code } else { State::BlockComment(depth - 1) }))
        }
        State::BlockComment(depth) if rest.starts_with(b"/*") => {
            (2, false, Some(State::BlockComment(depth + 1)))
        }
        State::BlockComment(_) => (1, false, None),
        State::Text if rest[0] == b'\\' => (rest.len().min(2), false, None),
        State::Text => (1, rest[0] == b'"', (rest[0] == b'"').then_some(State::Code)),
        State::RawText(hashes) => {
            let closes = rest[0] == b'"'
                && rest[1..].iter().take(*hashes).filter(|byte| **byte == b'#').count() == *hashes;
            if closes { (1 + hashes, false, Some(State::Code)) } else { (1, false, None) }
        }
    }
}

/// The number of `#` before the quote of a raw string, if this is one.
fn raw_hashes(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// The length of a character literal that starts here; none for a lifetime.
fn character_len(rest: &[u8]) -> Option<usize> {
    /// `'\u{10ffff}'` is the longest there is.
    const LITERAL_BYTES_MAX: usize = 12;
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).take(LITERAL_BYTES_MAX).position(|byte| *byte == b'\'')?;
        return Some(close + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(5)]).unwrap_or_else(|error| {
        std::str::from_utf8(&rest[1..=error.valid_up_to()]).expect("valid up to there")
    });
    let len = text.chars().next()?.len_utf8();
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}
