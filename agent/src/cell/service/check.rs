//! Requests within their limits, or what is wrong with them.

use celda_api::cell::v1;

use crate::cell::config::Defaults;
use crate::cell::core::Wanted;
use crate::cell::wish::{Wish, check_app, check_grace, check_id};

/// Ids of one batch.
const IDS_COUNT_MAX: usize = 1024;
const ID_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 256;

/// What a start wants.
///
/// # Errors
/// What is wrong, naming the field.
pub(super) fn wanted(request: v1::StartRequest, defaults: &Defaults) -> Result<Vec<Wanted>, String> {
    let count: usize = request.groups.iter().map(|group| group.ids.len()).sum();
    if !(1..=IDS_COUNT_MAX).contains(&count) {
        return Err(format!("{count} ids: 1 to {IDS_COUNT_MAX} are possible in a batch"));
    }
    let mut seen = std::collections::HashSet::with_capacity(count);
    let mut reserved = std::collections::HashSet::new();
    let mut wanted = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let v1::StartGroup { spec, app, first_index, ids, reservations } = group;
        if !reservations.is_empty() && reservations.len() != ids.len() {
            return Err("reservations: give one for each id, or none".into());
        }
        check_app(&app)?;
        for id in &ids {
            check_id(id)?;
            if !seen.insert(id.clone()) {
                return Err(format!("id {id:?} is in the batch twice"));
            }
        }
        if let Some(twice) = reservations.iter().find(|one| !reserved.insert(**one)) {
            return Err(format!("reservation {twice} is in the batch twice"));
        }
        let wish = Wish::read(spec.ok_or("a group without its spec")?, defaults)?;
        wanted.push(Wanted { wish, app, first_index, ids, reservations });
    }
    Ok(wanted)
}

/// Whether ids can be looked up.
///
/// # Errors
/// What is wrong.
pub(super) fn ids(ids: &[String]) -> Result<(), String> {
    if ids.len() > IDS_COUNT_MAX {
        return Err(format!("{} ids: at most {IDS_COUNT_MAX} are possible in a batch", ids.len()));
    }
    if ids.iter().any(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
        return Err(format!("an id has 1 to {ID_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// Whether a stop is within its limits.
///
/// # Errors
/// What is wrong.
pub(super) fn stop(given: &[String], grace_ms: Option<u32>, reason: &str) -> Result<(), String> {
    ids(given)?;
    grace(grace_ms)?;
    if reason.len() > REASON_BYTES_MAX {
        return Err(format!("reason: at most {REASON_BYTES_MAX} bytes are possible"));
    }
    Ok(())
}

/// Whether a grace is, if there is one.
///
/// # Errors
/// What is wrong.
pub(super) fn grace(grace_ms: Option<u32>) -> Result<(), String> {
    grace_ms.map_or(Ok(()), check_grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ids: &[&str], reservations: Vec<u64>) -> v1::StartRequest {
        let spec = Some(v1::Spec { image: "web:1".into(), ..v1::Spec::default() });
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let group = v1::StartGroup { spec, ids, reservations, ..v1::StartGroup::default() };
        v1::StartRequest { groups: vec![group] }
    }

    #[test]
    fn a_batch_is_whole_or_refused() {
        let read = |request| wanted(request, &Defaults::default());
        assert_eq!(read(request(&["a", "b"], vec![])).expect("a batch")[0].ids.len(), 2);
        let many: Vec<String> = (0..=IDS_COUNT_MAX).map(|n| format!("i{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (request, named) in [
            (request(&[], vec![]), "0 ids"),
            (request(&many, vec![]), "1025 ids"),
            (request(&["a", "a"], vec![]), "twice"),
            (request(&["a", "b"], vec![1]), "reservations"),
            (request(&["a", "b"], vec![7, 7]), "reservation 7 is in the batch twice"),
            (request(&["../a"], vec![]), "id"),
            (
                v1::StartRequest {
                    groups: vec![v1::StartGroup { ids: vec!["a".into()], ..Default::default() }],
                },
                "spec",
            ),
        ] {
            let error = read(request).expect_err(named);
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn stops_are_bounded() {
        assert!(stop(&["web".into()], Some(3_600_000), "").is_ok());
        assert!(stop(&["web".into()], Some(3_600_001), "").is_err());
        assert!(stop(&[String::new()], None, "").is_err());
        assert!(stop(&[], None, &"x".repeat(257)).is_err());
    }
}
