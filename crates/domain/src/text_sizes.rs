use crate::{Catalogue, Item};

/// Upper bounds of the bytes that ids and titles take in an answer, as JSON strings without their quotes.
///
/// No `k` items take more than the `k` longest of the catalogue. In every other encoding of this project a text is no longer
/// than in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSizes {
    ids: LargestSums,
    entries: LargestSums,
}

impl TextSizes {
    /// The sizes of a catalogue's texts. It sorts the sizes of all items, so it is for the time when a model is loaded.
    pub fn of(catalogue: &Catalogue) -> TextSizes {
        TextSizes::with_titles(catalogue, |item| catalogue.title(item))
    }

    /// The same with other titles than the catalogue's own.
    pub fn with_titles<'a>(catalogue: &Catalogue, title: impl Fn(Item) -> Option<&'a str>) -> TextSizes {
        let mut sizes: Vec<u64> = catalogue.ids().iter().map(|id| json_length(id) as u64).collect();
        let ids = LargestSums::of(sizes.clone());
        for (item, size) in (1..).map_while(Item::new).zip(&mut sizes) {
            *size += title(item).map_or(0, json_length) as u64;
        }
        TextSizes { ids, entries: LargestSums::of(sizes) }
    }

    /// The most bytes that the ids of `k` items take.
    pub fn ids(&self, k: usize) -> usize {
        self.ids.at(k)
    }

    /// The most bytes that the ids and titles of `k` items take.
    pub fn ids_and_titles(&self, k: usize) -> usize {
        self.entries.at(k)
    }
}

/// The bytes of a text as a JSON string, without the quotes.
pub fn json_length(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        // As `\u001f`.
        ..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(extra).sum::<usize>()
}

/// Sums of the largest values at powers of two. They bound the sums of any number of values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LargestSums {
    /// At `i` the sum of the 2^i largest values. The last one is the sum of all.
    sums: Box<[u64]>,
}

impl LargestSums {
    fn of(mut values: Vec<u64>) -> LargestSums {
        values.sort_unstable_by(|a, b| b.cmp(a));
        let (mut sums, mut sum, mut next) = (Vec::new(), 0, 1);
        for (count, value) in (1..).zip(&values) {
            sum += value;
            if count == next || count == values.len() {
                sums.push(sum);
                next *= 2;
            }
        }
        LargestSums { sums: sums.into() }
    }

    /// An upper bound of the sum of any `count` values. It is exact for a power of two and for all values.
    fn at(&self, count: usize) -> usize {
        let Some(power) = count.checked_ilog2() else { return 0 };
        let all = self.sums.last().copied().unwrap_or_default();
        let up_to = |power: u32| self.sums.get(power as usize).copied().unwrap_or(all);
        // Further values are no larger than the mean of those before.
        let by_mean = (u128::from(up_to(power)) * count as u128).div_ceil(1 << power);
        let by_next = if count.is_power_of_two() { up_to(power) } else { up_to(power + 1) };
        usize::try_from(by_mean.min(u128::from(by_next))).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{LargestSums, TextSizes, json_length};
    use crate::Catalogue;

    /// Numbers that look random and are the same in every run.
    fn numbers(count: usize) -> Vec<u64> {
        let mut state = 7_u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % 100 * ((state >> 40) % 3)
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn sums_are_upper_bounds_and_exact_at_powers_of_two_and_at_the_end() {
        for count in [1, 2, 3, 7, 8, 100, 1682] {
            let values = numbers(count);
            let sums = LargestSums::of(values.clone());
            let mut sorted = values;
            sorted.sort_unstable();
            sorted.reverse();
            let mut sum = 0;
            assert_eq!(sums.at(0), 0);
            for (k, value) in (1_usize..).zip(&sorted) {
                sum += *value as usize;
                let bound = sums.at(k);
                assert!(bound >= sum, "{k} of {count}: {bound} < {sum}");
                assert!(bound <= 2 * sum + sorted[0] as usize, "{k} of {count}: {bound} is far above {sum}");
                assert!(!k.is_power_of_two() && k != count || bound == sum, "{k} of {count}");
            }
            assert_eq!(sums.at(usize::MAX), sum);
        }
    }

    #[test]
    fn texts_count_with_their_escapes() {
        assert_eq!([json_length("a"), json_length("\"\\\n"), json_length("\u{1f}"), json_length("é")], [1, 6, 6, 2]);
        let titles = [("b", "B\"B"), ("z", "Z")].map(|(id, title)| (id.into(), title.into()));
        let ids = ["a", "b", "long"].map(Into::into).to_vec();
        let catalogue = Catalogue::new(ids, vec![0; 3]).unwrap().with_titles(titles);
        let sizes = TextSizes::of(&catalogue);
        assert_eq!([1, 2, 3].map(|k| sizes.ids(k)), [4, 5, 6]);
        assert_eq!([1, 2, 3].map(|k| sizes.ids_and_titles(k)), [5, 9, 10]);
    }
}
