//! Which certificates open the door.

use crate::support::{Authority, served};

#[tokio::test]
async fn certificates_of_the_authority_are_let_in() {
    let served = served(|_| {});
    let pair = served.authority.certify(&["anybody"]);
    assert!(served.lets_in(&pair).await);
}

#[tokio::test]
async fn what_is_no_valid_certificate_of_the_authority_is_refused() {
    let served = served(|_| {});
    let (ours, others) = (&served.authority, Authority::new());
    let right = ours.certify(&["client"]);
    assert!(!served.lets_in_as(None, ours).await, "no certificate");
    assert!(!served.lets_in(&others.certify(&["client"])).await, "of another authority");
    assert!(!served.lets_in(&ours.certify_within(&["client"], -10, -5)).await, "run out");
    assert!(!served.lets_in(&ours.certify_within(&["client"], 5, 10)).await, "not valid yet");
    assert!(!served.lets_in_as(Some(&right), &others).await, "the cell is another authority's");
    assert!(served.lets_in(&right).await, "the right one, after all of these");
}

#[tokio::test]
async fn only_the_names_that_are_wanted_are_let_in() {
    let wanted = ["ops", "ci.example", "spiffe://example/deploy"].map(str::to_owned).to_vec();
    let served = served(|listen| listen.clients = wanted);
    for (names, is_let_in) in [
        (&["ops"][..], true),
        (&["someone", "ci.example"], true),
        (&["someone"], false),
        (&["ops2", "ci.example.org"], false),
    ] {
        assert_eq!(served.lets_in(&served.authority.certify(names)).await, is_let_in, "{names:?}");
    }
}
