use half::{bf16, f16};
use safetensors::Dtype;

/// Element type of a stored tensor. The import converts all of them to float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Float64,
    Float32,
    Float16,
    BFloat16,
}

impl Element {
    /// The type of a `torch.*Storage`.
    pub(super) fn of_storage(name: &str) -> Option<Element> {
        match name {
            "DoubleStorage" => Some(Element::Float64),
            "FloatStorage" => Some(Element::Float32),
            "HalfStorage" => Some(Element::Float16),
            "BFloat16Storage" => Some(Element::BFloat16),
            _ => None,
        }
    }

    /// The type of a safetensors entry.
    pub(super) fn of_dtype(dtype: Dtype) -> Option<Element> {
        match dtype {
            Dtype::F64 => Some(Element::Float64),
            Dtype::F32 => Some(Element::Float32),
            Dtype::F16 => Some(Element::Float16),
            Dtype::BF16 => Some(Element::BFloat16),
            _ => None,
        }
    }

    /// Bytes of one value.
    pub(super) fn width(self) -> usize {
        match self {
            Element::Float64 => 8,
            Element::Float32 => 4,
            Element::Float16 | Element::BFloat16 => 2,
        }
    }

    /// The values of little-endian bytes.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Element::Float64 => decode_with(bytes, |value| f64::from_le_bytes(value) as f32),
            Element::Float32 => decode_with(bytes, f32::from_le_bytes),
            Element::Float16 => decode_with(bytes, |value| f16::from_le_bytes(value).to_f32()),
            Element::BFloat16 => decode_with(bytes, |value| bf16::from_le_bytes(value).to_f32()),
        }
    }
}

fn decode_with<const WIDTH: usize>(bytes: &[u8], value: impl Fn([u8; WIDTH]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

/// A tensor within a flat array: element (i, j, ...) is at `offset + i * stride[0] + j * stride[1] + ...`.
#[derive(Clone, Debug)]
pub(super) struct Strided {
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
    elements: usize,
}

impl Strided {
    /// A tensor within an array of `count` elements; `None` if it reaches beyond the array, or its sizes overflow.
    pub(super) fn new(offset: usize, shape: Vec<usize>, stride: Vec<usize>, count: usize) -> Option<Strided> {
        if shape.len() != stride.len() || shape.len() > 8 {
            return None;
        }
        let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
        if elements > 0 {
            let steps =
                |last: usize, (size, stride): (&usize, &usize)| last.checked_add((size - 1).checked_mul(*stride)?);
            let last = shape.iter().zip(&stride).try_fold(offset, steps)?;
            if last >= count {
                return None;
            }
        }
        Some(Strided { offset, shape, stride, elements })
    }

    /// A tensor that fills its array in row-major order; `None` if its sizes overflow.
    pub(super) fn dense(shape: Vec<usize>) -> Option<Strided> {
        let stride = dense_stride(&shape)?;
        let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
        Strided::new(0, shape, stride, count)
    }

    /// Sizes, outermost first.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order; `None` if `bytes` is shorter than the array.
    pub(super) fn gather(&self, element: Element, bytes: &[u8]) -> Option<Vec<f32>> {
        if Some(&self.stride) == dense_stride(&self.shape).as_ref() {
            let end = self.offset.checked_add(self.elements)?;
            let [start, end] = [self.offset, end].map(|place| place.checked_mul(element.width()));
            return Some(element.decode(bytes.get(start?..end?)?));
        }
        let array = element.decode(bytes);
        let mut values = Vec::new();
        values.try_reserve_exact(self.elements).ok()?;
        let mut index = vec![0_usize; self.shape.len()];
        for _ in 0..self.elements {
            let place = index.iter().zip(&self.stride).map(|(index, stride)| index * stride).sum::<usize>();
            values.push(*array.get(self.offset + place)?);
            for (index, size) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < *size {
                    break;
                }
                *index = 0;
            }
        }
        Some(values)
    }
}

/// The strides of a row-major array; `None` if they overflow.
fn dense_stride(shape: &[usize]) -> Option<Vec<usize>> {
    let mut stride = vec![1_usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        stride[axis - 1] = stride[axis].checked_mul(shape[axis])?;
    }
    Some(stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values 0 to 5 in the element type.
    fn bytes(element: Element) -> Vec<u8> {
        (0..6_u8)
            .flat_map(|value| match element {
                Element::Float64 => f64::from(value).to_le_bytes().to_vec(),
                Element::Float32 => f32::from(value).to_le_bytes().to_vec(),
                Element::Float16 => f16::from(value).to_le_bytes().to_vec(),
                Element::BFloat16 => bf16::from(value).to_le_bytes().to_vec(),
            })
            .collect()
    }

    #[test]
    fn views_are_gathered_in_row_major_order() {
        for element in [Element::Float64, Element::Float32, Element::Float16, Element::BFloat16] {
            let gather = |offset, shape: &[usize], stride: &[usize]| {
                Strided::new(offset, shape.to_vec(), stride.to_vec(), 6)?.gather(element, &bytes(element))
            };
            assert_eq!(gather(2, &[2, 2], &[2, 1]).unwrap(), [2.0, 3.0, 4.0, 5.0]);
            assert_eq!(gather(1, &[2, 2], &[1, 2]).unwrap(), [1.0, 3.0, 2.0, 4.0]);
            assert_eq!(gather(5, &[], &[]).unwrap(), [5.0]);
            assert_eq!(gather(9, &[0, 3], &[3, 1]), None);
            assert_eq!(gather(3, &[2, 2], &[2, 1]), None);
        }
    }

    #[test]
    fn a_short_array_gives_nothing() {
        let bytes = bytes(Element::Float32);
        for stride in [[3, 1], [1, 3]] {
            let strided = Strided::new(0, vec![2, 3], stride.to_vec(), 8).unwrap();
            assert_eq!(strided.gather(Element::Float32, &bytes[..20]), None);
        }
    }
}
