use std::cmp::Reverse;

/// The most bytes of names that an error lists.
const LISTED_BYTES: usize = 300;

/// The most characters of an unknown name that are compared and repeated.
const NAME: usize = 40;

/// The most names that are compared.
const COMPARED: usize = 256;

/// The start of a name that a client sent.
pub(crate) fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME { name.to_owned() } else { name.chars().take(NAME).chain(['…']).collect() }
}

/// A list of names, those most like `name` first, and how many more there are. `names` is ascending.
///
/// Of very many names only the neighbours in the alphabet are compared, because every wrong request pays for this.
pub(crate) fn list(name: &str, names: &[&str]) -> String {
    let name: String = name.chars().take(NAME).collect();
    // The names are in the order of their own letters, capitals first.
    let middle = names.partition_point(|other| **other < *name);
    let start = middle.saturating_sub(COMPARED / 2).min(names.len().saturating_sub(COMPARED));
    let name = name.to_lowercase();
    let compared = &names[start..names.len().min(start + COMPARED)];
    let likeness = |other: &&&str| {
        let other = other.chars().take(NAME).collect::<String>().to_lowercase();
        // From 0 to 1, so a whole number orders it.
        (strsim::jaro_winkler(&name, &other) * 1e6) as u64
    };
    let mut order: Vec<&&str> = compared.iter().collect();
    order.sort_by_cached_key(|other| Reverse(likeness(other)));
    let (mut text, mut listed) = (String::new(), 0);
    for other in order {
        let next = format!("{}{:?}", if listed == 0 { "" } else { ", " }, shortened(other));
        if listed > 0 && text.len() + next.len() > LISTED_BYTES {
            break;
        }
        text.push_str(&next);
        listed += 1;
    }
    match names.len() - listed {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn similar_names_come_first_and_the_list_is_short() {
        assert_eq!(list("Colour", &["brand", "category", "color"]), r#""color", "category", "brand""#);
        assert_eq!(list("x", &[]), "");
        let brands: Vec<String> = (0..1000).map(|name| format!("Brand {name:03}")).collect();
        let brands: Vec<&str> = brands.iter().map(String::as_str).collect();
        assert!(list("Brand 0000", &brands).starts_with("\"Brand 000\""));
        let names: Vec<String> = (0..100_000).map(|name| format!("value {name:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in ["value 500001", "", "zzz", &"long ".repeat(100_000)] {
            let text = list(name, &names);
            assert!(text.len() < 340 && text.ends_with(" more"), "{text}");
        }
        assert!(list("value 500001", &names).starts_with(r#""value 50000", "value 50001""#));
        assert!(list("x", &[&"long ".repeat(100)]).len() < 200);
    }
}
