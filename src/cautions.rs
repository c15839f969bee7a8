//! What a reader of measured numbers has to know, as several commands say it.

/// Where users come back to items: of `all` targets, `repeated` are in their user's own history.
pub(crate) fn misses(repeated: usize, all: usize) -> Option<String> {
    (repeated > 0).then(|| format!("{repeated} of {all} targets are in the user's own history and count as misses."))
}

/// Where there are several intervals at once.
pub(crate) fn looks(what: &str, all: usize, users: usize) -> Option<String> {
    (all > 1).then(|| {
        format!(
            "Each interval is for one comparison. {all} {what} are {all} looks at the same {users} users: of comparisons \
             without any difference one in twenty looks like one."
        )
    })
}
