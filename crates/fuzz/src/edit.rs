use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Numbers at which parsers and sizes overflow, as text.
const NUMBERS: [&str; 20] = [
    "0",
    "-1",
    "-0.0",
    "1.5",
    "00",
    "1e1",
    "1e308",
    "1e999",
    "1e-400",
    "NaN",
    "127",
    "256",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "999999999999999999999999999999",
];

/// The same for binary fields.
const WORDS: [u64; 10] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, 1 << 63, u64::MAX];

/// Longest input that is made.
const LIMIT: usize = 512 << 10;

/// One change of an input. An [`Index`] is a place relative to the length that the input has by then.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Flips a bit.
    FlipBit(Index, u8),
    /// Sets a byte.
    SetByte(Index, u8),
    /// Inserts a token of the target.
    Insert(Index, Index),
    /// Writes a token of the target over what is there.
    Overwrite(Index, Index),
    /// Replaces the digits at or after a place with another number.
    Number(Index, Index),
    /// Replaces what stands between two separators with a token of the target.
    Field(Index, Index),
    /// Replaces what stands between two separators with what does so in an input of the corpus.
    OtherField(Index, Index, Index),
    /// Writes an integer of 1, 2, 4 or 8 bytes, little-endian or big-endian.
    Word(Index, Index, u8, bool),
    /// Deletes up to this many bytes.
    Delete(Index, u16),
    /// Repeats some bytes this many times.
    Repeat(Index, u8, u16),
    /// Inserts bytes of an input of the corpus.
    Splice(Index, Index, Index, u16),
    /// Cuts the rest off.
    Truncate(Index),
}

fn edits() -> impl Strategy<Value = Edit> {
    let place = any::<Index>;
    prop_oneof![
        3 => (place(), 0..8_u8).prop_map(|(place, bit)| Edit::FlipBit(place, bit)),
        3 => (place(), any::<u8>()).prop_map(|(place, byte)| Edit::SetByte(place, byte)),
        5 => (place(), place()).prop_map(|(place, token)| Edit::Insert(place, token)),
        5 => (place(), place()).prop_map(|(place, token)| Edit::Overwrite(place, token)),
        5 => (place(), place()).prop_map(|(place, number)| Edit::Number(place, number)),
        6 => (place(), place()).prop_map(|(place, token)| Edit::Field(place, token)),
        6 => (place(), place(), place()).prop_map(|(place, seed, from)| Edit::OtherField(place, seed, from)),
        3 => (place(), place(), 0..4_u8, any::<bool>())
            .prop_map(|(place, word, width, big)| Edit::Word(place, word, width, big)),
        4 => (place(), 1..40_u16).prop_map(|(place, length)| Edit::Delete(place, length)),
        2 => (place(), 1..60_u8, prop_oneof![3 => 1..4_u16, 1 => 4..2000_u16])
            .prop_map(|(place, length, times)| Edit::Repeat(place, length, times)),
        3 => (place(), place(), place(), 1..200_u16)
            .prop_map(|(place, seed, from, length)| Edit::Splice(place, seed, from, length)),
        1 => place().prop_map(Edit::Truncate),
    ]
}

/// An input of the corpus and its changes.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub(crate) seed: Index,
    edits: Vec<Edit>,
}

impl Mutant {
    pub(crate) fn any() -> impl Strategy<Value = Mutant> {
        let edits = prop_oneof![5 => vec(edits(), 1..2), 3 => vec(edits(), 2..4), 1 => vec(edits(), 4..8)];
        (any::<Index>(), edits).prop_map(|(seed, edits)| Mutant { seed, edits })
    }

    /// The bytes of this mutant. `corpus` is not empty.
    pub(crate) fn bytes(&self, corpus: &[&[u8]], tokens: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.seed.get(corpus).to_vec();
        for edit in &self.edits {
            apply(edit, &mut bytes, corpus, tokens);
            bytes.truncate(LIMIT);
        }
        bytes
    }
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>, corpus: &[&[u8]], tokens: &[&[u8]]) {
    // The end is a place too.
    let end = bytes.len() + 1;
    let token = |index: &Index| if tokens.is_empty() { &[][..] } else { index.get(tokens) };
    match edit {
        Edit::FlipBit(place, bit) => {
            if let Some(byte) = bytes.get_mut(place.index(end)) {
                *byte ^= 1 << bit;
            }
        }
        Edit::SetByte(place, value) => {
            if let Some(byte) = bytes.get_mut(place.index(end)) {
                *byte = *value;
            }
        }
        Edit::Insert(place, index) => {
            let place = place.index(end);
            bytes.splice(place..place, token(index).iter().copied());
        }
        Edit::Overwrite(place, index) => overwrite(bytes, place.index(end), token(index)),
        Edit::Number(place, number) => {
            let is_digit = |byte: &u8| byte.is_ascii_digit();
            let place = place.index(end);
            if let Some(start) = bytes[place..].iter().position(is_digit).map(|offset| place + offset) {
                let length = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                bytes.splice(start..start + length, number.get(&NUMBERS).bytes());
            }
        }
        Edit::Field(place, index) => {
            let field = field(bytes, place.index(end));
            bytes.splice(field, token(index).iter().copied());
        }
        Edit::OtherField(place, seed, from) => {
            let other = seed.get(corpus);
            let with = field(other, from.index(other.len() + 1));
            let field = field(bytes, place.index(end));
            bytes.splice(field, other[with].iter().copied());
        }
        Edit::Word(place, word, width, big) => {
            let (word, width) = (word.get(&WORDS), 1 << width);
            let [little, large] = [word.to_le_bytes(), word.to_be_bytes()];
            overwrite(bytes, place.index(end), if *big { &large[8 - width..] } else { &little[..width] });
        }
        Edit::Delete(place, length) => {
            let place = place.index(end);
            bytes.drain(place..(place + usize::from(*length)).min(bytes.len()));
        }
        Edit::Repeat(place, length, times) => {
            let place = place.index(end);
            let piece = &bytes[place..(place + usize::from(*length)).min(bytes.len())];
            let repeated = piece.repeat(usize::from(*times));
            bytes.splice(place..place, repeated);
        }
        Edit::Splice(place, seed, from, length) => {
            let other = seed.get(corpus);
            let from = from.index(other.len() + 1);
            let piece = &other[from..(from + usize::from(*length)).min(other.len())];
            let place = place.index(end);
            bytes.splice(place..place, piece.iter().copied());
        }
        Edit::Truncate(place) => bytes.truncate(place.index(end)),
    }
}

/// The bytes around a place that are between two separators of JSON or of a table.
fn field(bytes: &[u8], place: usize) -> Range<usize> {
    let separates = |byte: &u8| b",:;|[]{}\t\r\n".contains(byte);
    let start = bytes[..place].iter().rposition(separates).map_or(0, |before| before + 1);
    let end = bytes[place..].iter().position(separates).map_or(bytes.len(), |after| place + after);
    start..end
}

fn overwrite(bytes: &mut Vec<u8>, place: usize, with: &[u8]) {
    let end = (place + with.len()).min(bytes.len());
    bytes.splice(place..end, with.iter().copied());
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn mutants_differ_from_the_corpus_and_are_bounded() {
        let corpus: [&[u8]; 2] = [b"{\"k\": 10, \"history\": [1, 2, 3]}", b""];
        let mut runner = TestRunner::deterministic();
        let mut changed = 0;
        for _ in 0..2000 {
            let mutant = Mutant::any().new_tree(&mut runner).unwrap().current();
            let bytes = mutant.bytes(&corpus, &[b"null"]);
            assert!(bytes.len() <= LIMIT);
            changed += usize::from(!corpus.contains(&bytes.as_slice()));
        }
        assert!(changed > 1500, "{changed}");
    }

    #[test]
    fn a_field_is_between_separators() {
        let bytes = b"{\"k\": 10, \"a\": []}";
        let found = [0, 1, 6, 7, 17, bytes.len()].map(|place| bytes[field(bytes, place)].escape_ascii().to_string());
        assert_eq!(found, ["", "\\\"k\\\"", " 10", " 10", "", ""]);
    }

    #[test]
    fn a_number_is_replaced_as_a_whole() {
        let mut bytes = b"k=123;".to_vec();
        let place = |index: usize| {
            let mut runner = TestRunner::deterministic();
            std::iter::repeat_with(move || any::<Index>().new_tree(&mut runner).unwrap().current())
                .find(move |found| found.index(7) == index && found.index(NUMBERS.len()) == 1)
                .unwrap()
        };
        let place = place(0);
        apply(&Edit::Number(place, place), &mut bytes, &[b""], &[]);
        assert_eq!(bytes, b"k=-1;");
    }
}
