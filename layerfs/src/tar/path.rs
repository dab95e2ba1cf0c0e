//! Paths of a tar, made safe to put into a tree: relative, without empty, `.` and `..` components.

use super::TarReason;
use crate::Limits;

/// Joins `parts` (a ustar prefix and name, or one whole path) by slashes and normalises: leading `/`, `./`, doubled
/// and trailing slashes go; what would leave the root is refused. Empty when the path is the root itself.
pub(super) fn normalise(parts: [&[u8]; 2], limits: &Limits) -> Result<Box<[u8]>, TarReason> {
    let capacity = parts[0].len() + parts[1].len() + 1;
    // A path too long only for its dots and slashes still ends here: no tool writes one.
    check_length(capacity.saturating_sub(2), limits)?;
    let mut path = Vec::with_capacity(capacity);
    for component in parts.into_iter().flat_map(|part| part.split(|&byte| byte == b'/')) {
        match component {
            b"" | b"." => continue,
            b".." => return Err(TarReason::ParentComponent),
            _ if component.contains(&0) => return Err(TarReason::Nul),
            _ if component.len() > limits.name_bytes => {
                return Err(TarReason::Limit {
                    limit: "name_bytes",
                    asked: component.len() as u64,
                    allowed: limits.name_bytes as u64,
                });
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    check_length(path.len(), limits)?;
    Ok(path.into_boxed_slice())
}

/// A symbolic link's target: kept as written, as long as the kernel would take it.
pub(super) fn symlink_target(target: &[u8], limits: &Limits) -> Result<Box<[u8]>, TarReason> {
    if target.is_empty() {
        return Err(TarReason::NoTarget);
    }
    if target.contains(&0) {
        return Err(TarReason::Nul);
    }
    check_length(target.len(), limits)?;
    Ok(target.into())
}

fn check_length(length: usize, limits: &Limits) -> Result<(), TarReason> {
    if length > limits.path_bytes {
        return Err(TarReason::Limit {
            limit: "path_bytes",
            asked: length as u64,
            allowed: limits.path_bytes as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str) -> Result<String, TarReason> {
        normalise([b"", path.as_bytes()], &Limits::default())
            .map(|path| String::from_utf8(path.into()).expect("the test's paths are UTF-8"))
    }

    #[test]
    fn spellings_of_one_path() {
        for path in ["usr/bin", "./usr/bin", "/usr/bin", "usr//bin/", "././usr/./bin/.", "///usr/bin//"] {
            assert_eq!(one(path).as_deref(), Ok("usr/bin"), "{path}");
        }
        for root in ["", "/", ".", "./", "//", "./."] {
            assert_eq!(one(root).as_deref(), Ok(""), "{root}");
        }
        assert_eq!(one("...").as_deref(), Ok("..."));
        assert_eq!(one(".wh.x").as_deref(), Ok(".wh.x"));
        let joined = normalise([b"usr/lib/", b"x"], &Limits::default());
        assert_eq!(joined.as_deref(), Ok(&b"usr/lib/x"[..]));
    }

    #[test]
    fn paths_that_leave_the_root() {
        for path in ["..", "../x", "/..", "a/../b", "a/..", "./../etc/passwd"] {
            assert_eq!(one(path), Err(TarReason::ParentComponent), "{path}");
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(one("a\0b"), Err(TarReason::Nul));
        assert!(one(&"n".repeat(255)).is_ok());
        assert!(matches!(one(&"n".repeat(256)), Err(TarReason::Limit { limit: "name_bytes", .. })));
        let long = format!("{}xxx", "abc/".repeat(1023));
        assert_eq!(long.len(), 4095);
        assert!(one(&long).is_ok());
        assert!(matches!(one(&format!("{long}x")), Err(TarReason::Limit { limit: "path_bytes", .. })));
    }
}
