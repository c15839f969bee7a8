use half::{bf16, f16};
use safetensors::Dtype;

/// Element type of a stored tensor; every one becomes float32.
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

    /// The little-endian value at a place; `None` past the end.
    fn decode(self, bytes: &[u8], place: usize) -> Option<f32> {
        let value = bytes.get(place.checked_mul(self.width())?..)?;
        Some(match self {
            Element::Float64 => f64::from_le_bytes(*value.first_chunk()?) as f32,
            Element::Float32 => f32::from_le_bytes(*value.first_chunk()?),
            Element::Float16 => f16::from_le_bytes(*value.first_chunk()?).to_f32(),
            Element::BFloat16 => bf16::from_le_bytes(*value.first_chunk()?).to_f32(),
        })
    }
}

/// A dense tensor laid over a flat array: element (i, j, ...) is at `offset + i * stride[0] + j * stride[1] + ...`.
#[derive(Clone, Debug)]
pub(super) struct Strided {
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
    elements: usize,
}

impl Strided {
    /// A tensor within an array of `count` elements; `None` where it would reach beyond, or its sizes make no sense.
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

    /// A tensor that fills its array in row-major order; `None` where the sizes overflow.
    pub(super) fn dense(shape: Vec<usize>) -> Option<Strided> {
        let mut stride = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            stride[axis - 1] = stride[axis].checked_mul(shape[axis])?;
        }
        let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
        Strided::new(0, shape, stride, count)
    }

    /// Sizes, outermost first.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order; `None` where `bytes` is shorter than the array.
    pub(super) fn gather(&self, element: Element, bytes: &[u8]) -> Option<Vec<f32>> {
        let mut values = Vec::new();
        values.try_reserve_exact(self.elements).ok()?;
        let mut index = vec![0_usize; self.shape.len()];
        for _ in 0..self.elements {
            let place = index.iter().zip(&self.stride).map(|(index, stride)| index * stride).sum::<usize>();
            values.push(element.decode(bytes, self.offset + place)?);
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
