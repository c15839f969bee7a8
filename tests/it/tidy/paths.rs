//! Every path that a source file names, resolved from the crate's root.

use super::tokens::Token;

/// `crate::a::b`, `super::b` or a part of a `use` group, as the names from the root on; a path into another crate
/// begins with that crate's name.
#[derive(Debug)]
pub(super) struct NamedPath<'a> {
    pub names: Vec<&'a str>,
    /// Whether it leads into this crate.
    pub own: bool,
    /// Whether a `use` declaration names it.
    pub imported: bool,
    pub line: usize,
}

/// The paths of a file that is the module `module`, such as `["model", "config"]`.
pub(super) fn paths<'a>(tokens: &[Token<'a>], module: &[&'a str]) -> Vec<NamedPath<'a>> {
    let mut found = Vec::new();
    // The inline modules around the current place, each with the brace depth inside it.
    let mut inline: Vec<(&str, usize)> = Vec::new();
    let mut depth = 0;
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        let previous = place.checked_sub(1).map_or("", |before| tokens[before].text);
        match token.text {
            "{" => {
                depth += 1;
                if place >= 2 && tokens[place - 2].text == "mod" {
                    inline.push((previous, depth));
                }
            }
            "}" => {
                if inline.last().is_some_and(|(_, opened)| *opened == depth) {
                    inline.pop();
                }
                depth -= 1;
            }
            _ => {}
        }
        // A sign before it, as in `(::tch::Tensor`, makes `::` the begin of a path and not its middle.
        let continues =
            previous == "::" && place >= 2 && (is_name(tokens[place - 2].text) || tokens[place - 2].text == ">");
        let begins = text(tokens, place + 1) == "::" && is_name(token.text) && !continues;
        if previous == "use" || begins {
            let here = module.iter().copied().chain(inline.iter().map(|(name, _)| *name)).collect();
            let mut walk = Walk { tokens, here, imported: previous == "use", found: &mut found };
            place = walk.tree(place, &Start::Anywhere).max(place + 1);
        } else {
            place += 1;
        }
    }
    found
}

fn text<'a>(tokens: &[Token<'a>], place: usize) -> &'a str {
    tokens.get(place).map_or("", |token| token.text)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Where a path tree begins.
#[derive(Clone)]
enum Start<'a> {
    /// Nothing was read yet.
    Anywhere,
    /// After `crate::`, `super::a::` and the like.
    Own(Vec<&'a str>),
    /// After the name of another crate, or of something in scope.
    Other(Vec<&'a str>),
}

struct Walk<'a, 't, 'f> {
    tokens: &'t [Token<'a>],
    here: Vec<&'a str>,
    imported: bool,
    found: &'f mut Vec<NamedPath<'a>>,
}

impl<'a> Walk<'a, '_, '_> {
    /// Reads one path or `use` tree, and returns the place behind it.
    fn tree(&mut self, mut place: usize, start: &Start<'a>) -> usize {
        let mut start = start.clone();
        let line = self.tokens.get(place).map_or(0, |token| token.line);
        if text(self.tokens, place) == "::" {
            place += 1;
        }
        loop {
            let name = text(self.tokens, place);
            if name == "{" {
                return self.group(place + 1, &start);
            }
            if !is_name(name) && name != "*" {
                break;
            }
            start = self.step(start, name);
            place += 1;
            if text(self.tokens, place) != "::" {
                break;
            }
            place += 1;
        }
        let (names, own) = match start {
            Start::Anywhere => return place,
            Start::Own(names) => (names, true),
            Start::Other(names) => (names, false),
        };
        self.found.push(NamedPath { names, own, imported: self.imported, line });
        place
    }

    fn group(&mut self, mut place: usize, start: &Start<'a>) -> usize {
        while !matches!(text(self.tokens, place), "}" | "") {
            place = match text(self.tokens, place) {
                "," => place + 1,
                // The new name of an import.
                "as" => place + 2,
                _ => self.tree(place, start).max(place + 1),
            };
        }
        place + 1
    }

    fn step(&self, start: Start<'a>, name: &'a str) -> Start<'a> {
        let extended = |mut names: Vec<&'a str>| {
            names.push(name);
            names
        };
        match (start, name) {
            // The binary names the library by its name.
            (Start::Anywhere, "crate" | "canet") => Start::Own(Vec::new()),
            (Start::Anywhere, "self") => Start::Own(self.here.clone()),
            (Start::Anywhere, "super") => Start::Own(parent(self.here.clone())),
            (Start::Anywhere, _) => Start::Other(vec![name]),
            (Start::Own(names), "self") => Start::Own(names),
            (Start::Own(names), "super") => Start::Own(parent(names)),
            (Start::Own(names), _) => Start::Own(extended(names)),
            (Start::Other(names), "self") => Start::Other(names),
            (Start::Other(names), _) => Start::Other(extended(names)),
        }
    }
}

fn parent(mut names: Vec<&str>) -> Vec<&str> {
    names.pop();
    names
}
