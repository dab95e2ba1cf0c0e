//! The little of HTTP/1.1 (RFC 9112) that a health check needs: bytes in, a status out; pure.

/// Bytes of an answer that are looked at: the heads of interim answers and the final status line.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes of a status line; the reason at its end is of no use here.
const STATUS_LINE_BYTES_MAX: usize = 1024;

/// What the bytes of an answer say so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not enough.
    More,
    /// The final status.
    Status(u16),
    /// No answer in HTTP/1.
    Wrong(&'static str),
}

/// The request for a path.
pub fn request(path: &str, port: u16) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: celda-health/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// True for a path that can stand in a request: printable ASCII from `/` on.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= HEAD_BYTES_MAX && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads the status; interim ones (1xx) are passed over.
pub fn answer(mut bytes: &[u8]) -> Answer {
    if bytes.len() > HEAD_BYTES_MAX {
        return Answer::Wrong("interim answers without end");
    }
    loop {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            let is_begun = bytes.len() <= STATUS_LINE_BYTES_MAX && is_prefix(bytes);
            return if is_begun { Answer::More } else { Answer::Wrong("no HTTP/1 status line") };
        };
        match status(bytes.get(..end).unwrap_or_default()) {
            None => return Answer::Wrong("no HTTP/1 status line"),
            Some(100..=199) => {}
            Some(status) => return Answer::Status(status),
        }
        // To the empty line that ends the interim head.
        loop {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return Answer::More };
            let line = bytes.get(..end).unwrap_or_default();
            bytes = bytes.get(end + 1..).unwrap_or_default();
            if line.strip_suffix(b"\r").unwrap_or(line).is_empty() {
                break;
            }
        }
    }
}

/// True when bytes could become a status line.
fn is_prefix(bytes: &[u8]) -> bool {
    b"HTTP/1.".iter().zip(bytes).all(|(one, other)| one == other)
}

fn status(line: &[u8]) -> Option<u16> {
    let [b'0' | b'1', b' ', rest @ ..] = line.strip_prefix(b"HTTP/1.")? else { return None };
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..] = rest else { return None };
    if !matches!(after.first(), None | Some(b' ' | b'\r')) {
        return None;
    }
    Some([a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statuses_are_read_and_rubbish_is_not() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nX: y\r\n", Answer::Status(200)),
            ("HTTP/1.0 503\n", Answer::Status(503)),
            ("HTTP/1.1 404\r\n", Answer::Status(404)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n", Answer::Status(204)),
            ("HTTP/1.1 103 Early\r\nLink: x\r\n", Answer::More),
            ("HTTP/1.1 20", Answer::More),
            ("", Answer::More),
            ("HTTP/2 200\r\n", Answer::Wrong("no HTTP/1 status line")),
            ("HTTP/1.1 2000\r\n", Answer::Wrong("no HTTP/1 status line")),
            ("HTTP/1.1 099\r\n", Answer::Wrong("no HTTP/1 status line")),
            ("SSH-2.0-OpenSSH\r\n", Answer::Wrong("no HTTP/1 status line")),
            ("\r\n", Answer::Wrong("no HTTP/1 status line")),
        ] {
            assert_eq!(answer(text.as_bytes()), expected, "{text:?}");
        }
        assert!(matches!(answer(&[b'H'; 3]), Answer::Wrong(_)));
        let long = [b"HTTP/1.1 200 ".as_slice(), &[b'x'; STATUS_LINE_BYTES_MAX]].concat();
        assert!(matches!(answer(&long), Answer::Wrong(_)));
        let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        assert!(matches!(answer(&endless), Answer::Wrong(_)));
    }

    #[test]
    fn paths_cannot_smuggle() {
        assert!(
            is_path("/health?x=1")
                && request("/x", 80).starts_with(b"GET /x HTTP/1.1\r\nHost: localhost:80\r\n")
        );
        for path in ["", "x", "/a b", "/a\r\nX: y", "/é", "/a\0"] {
            assert!(!is_path(path), "{path:?}");
        }
    }

    proptest! {
        /// A longer answer never takes a status back, and never changes it.
        #[test]
        fn more_bytes_change_nothing_that_was_known(bytes in proptest::collection::vec(
            prop_oneof![Just(b"HTTP/1.1 200 OK\r\n".to_vec()), Just(b"HTTP/1.1 100 x\r\n\r\n".to_vec()), Just(b"\r\n".to_vec()),
                        proptest::collection::vec(any::<u8>(), 0..9)], 0..8)) {
            let bytes = bytes.concat();
            let whole = answer(&bytes);
            for end in 0..bytes.len() {
                match answer(&bytes[..end]) {
                    Answer::More => {}
                    known => prop_assert_eq!(known, whole),
                }
            }
        }
    }
}
