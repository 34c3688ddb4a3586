//! Matrices that a checkpoint in safetensors stores quantised: FP8, compressed-tensors, bitsandbytes, GPTQ and AWQ. They are
//! dequantised when they are read, a row at a time; activations are not quantised, whatever the config says of them.

mod four_bits;
mod method;
mod packed;
mod scaled;

use std::sync::atomic::Ordering;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

pub use method::Quantisation;

use super::file::File;
use super::{Part, TensorRef, Weights, convert};
use crate::error::{Error, Result};
use four_bits::{FourBits, State};
use method::Method;
use packed::{Packed, Packing};
use scaled::Scaled;

/// The part of a quantised matrix that a model takes.
pub(super) struct Quantised<'a> {
    /// The tensor with the numbers.
    main: Stored<'a>,
    layout: Layout<'a>,
    /// Inputs.
    width: usize,
    rows: Vec<usize>,
}

enum Layout<'a> {
    Packed(Packed<'a>),
    Scaled(Scaled<'a>),
    FourBits(FourBits<'a>),
}

/// A tensor as it is in its file.
struct Stored<'a> {
    name: &'a str,
    file: &'a File,
    kind: String,
    dims: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> Stored<'a> {
    fn wrong(&self, expected: impl std::fmt::Display) -> Error {
        let found = format!("tensor {} of type {} and shape {:?}", self.name, self.kind, self.dims);
        self.file.wrong(found, expected)
    }

    /// The bytes of a tensor of this type and shape.
    fn exactly(&self, kind: &str, dims: &[usize]) -> Result<&'a [u8]> {
        match self.kind == kind && self.dims == dims {
            true => Ok(self.bytes),
            false => Err(self.wrong(format!("{kind} of shape {dims:?}"))),
        }
    }

    /// The values of a tensor of floats, or of powers of two (E8M0).
    fn floats(&self) -> Result<Vec<f32>> {
        if self.kind == "F8_E8M0" {
            return Ok(self.bytes.iter().map(|&byte| (f32::from(byte) - 127.0).exp2()).collect());
        }
        let (stored, bytes) = self.file.stored(self.name)?;
        let place = TensorRef::whole(self.name, self.dims);
        let read = convert::read::<f32>(&place, stored, bytes, &|_| ())?;
        let read = read.map_err(|wrong| {
            let found = format!("{} at index {} of tensor {}", wrong.number, wrong.index, self.name);
            self.file.wrong(found, "finite scales")
        })?;
        Ok(read.flatten_all()?.to_vec1()?)
    }
}

impl Weights {
    /// The weights with the way in which the config says that they are quantised.
    pub(in crate::model) fn with_quantisation(self, quantisation: Quantisation) -> Weights {
        Weights { quantisation: Some(quantisation), ..self }
    }

    /// How the checkpoint's matrices are quantised, where its config says so: `gptq, 4 bits`.
    pub fn quantisation(&self) -> Option<&str> {
        self.quantisation.as_ref().map(Quantisation::name)
    }

    /// Whether a matrix of this name is there under the names of a quantiser.
    pub(super) fn has_quantised(&self, name: &str) -> bool {
        let module = name.strip_suffix("weight").filter(|_| self.quantisation.is_some());
        let has = |end: &str| module.is_some_and(|module| self.find(&format!("{module}{end}")).is_some());
        has("qweight") || has("weight_packed")
    }

    /// The matrix of a place, where the checkpoint has it quantised; none where it has it as it is, as it has the modules that the
    /// config exempts.
    ///
    /// # Errors
    /// Tensors of the quantiser that are missing, or of another type or shape.
    pub(super) fn quantised(&self, place: &TensorRef) -> Result<Option<Quantised<'_>>> {
        let Some(quantisation) = &self.quantisation else { return Ok(None) };
        let (Some(module), &[first, second]) = (place.name.strip_suffix(".weight"), place.shape.as_slice())
        else {
            return Ok(None);
        };
        // GPT-2's layout is `[in, out]`; quantisers turn it.
        let [outputs, inputs] = match &place.part {
            Part::Whole | Part::Rows(_) => [first, second],
            Part::Columns(_) => [second, first],
            Part::Strided { .. } | Part::Transposed => return Ok(None),
        };
        let found = match &quantisation.method {
            Method::Gptq { offset } => self.gptq(module, [outputs, inputs], *offset)?,
            Method::Awq => self.awq(module, [outputs, inputs])?,
            Method::BitsAndBytes => self.bitsandbytes(module, [outputs, inputs])?,
            Method::Scaled { block } => match self.scaled(module, [outputs, inputs], *block)? {
                None => self.packed_rows(module, [outputs, inputs])?,
                found => found,
            },
        };
        let Some((main, layout)) = found else { return Ok(None) };
        place.check()?;
        // The shape is that of a tensor by now, whatever the config claims.
        let rows = match &place.part {
            Part::Rows(ranges) => ranges.iter().cloned().flatten().collect(),
            Part::Columns(columns) => columns.clone().collect(),
            Part::Whole | Part::Strided { .. } | Part::Transposed => (0..outputs).collect(),
        };
        Ok(Some(Quantised { main, layout, width: inputs, rows }))
    }

    /// A tensor of the checkpoint, which then counts as taken.
    fn stored(&self, name: &str) -> Result<Option<Stored<'_>>> {
        let Some((name, found)) = self.find(name) else { return Ok(None) };
        found.taken.store(true, Ordering::Relaxed);
        let file = &self.files[found.file];
        let (kind, dims, bytes) = file.raw(name)?;
        Ok(Some(Stored { name, file, kind, dims, bytes }))
    }

    /// A tensor beside the one with a matrix's numbers.
    fn beside(&self, main: &Stored, name: &str) -> Result<Stored<'_>> {
        let missing = || main.file.wrong(format!("tensor {} without {name}", main.name), "both");
        self.stored(name)?.ok_or_else(missing)
    }

    fn gptq(&self, module: &str, [outputs, inputs]: [usize; 2], offset: u32) -> Result<Option<Found<'_>>> {
        let Some(main) = self.stored(&format!("{module}.qweight"))? else { return Ok(None) };
        let bits = match main.dims {
            &[words, _] if inputs > 0 => words * 32 / inputs,
            _ => 0,
        };
        if ![2, 4, 8].contains(&bits) || !(outputs * bits).is_multiple_of(32) {
            return Err(main.wrong(format!("2, 4 or 8 bits for {inputs} inputs and {outputs} outputs")));
        }
        let words = main.exactly("I32", &[inputs * bits / 32, outputs])?;
        let scales = self.beside(&main, &format!("{module}.scales"))?;
        let count = match scales.dims {
            &[count, columns] if columns == outputs && count > 0 => count,
            _ => return Err(scales.wrong(format!("a row of {outputs} for each group"))),
        };
        let zeros = self.beside(&main, &format!("{module}.qzeros"))?;
        let zeros = zeros.exactly("I32", &[count, outputs * bits / 32])?;
        let order = self.stored(&format!("{module}.g_idx"))?;
        let groups = groups(order, [inputs, count])?;
        let zeros = packed::zeros(Packing::Inputs, zeros, bits, [count, outputs], offset);
        let scales = scales.floats()?;
        let layout = Packed { packing: Packing::Inputs, bits, words, outputs, inputs, groups, scales, zeros };
        Ok(Some((main, Layout::Packed(layout))))
    }

    fn awq(&self, module: &str, [outputs, inputs]: [usize; 2]) -> Result<Option<Found<'_>>> {
        let Some(main) = self.stored(&format!("{module}.qweight"))? else { return Ok(None) };
        let words = main.exactly("I32", &[inputs, outputs / 8])?;
        if !outputs.is_multiple_of(8) {
            return Err(main.wrong("a multiple of 8 outputs"));
        }
        let scales = self.beside(&main, &format!("{module}.scales"))?;
        let count = match scales.dims {
            &[count, columns] if columns == outputs && count > 0 => count,
            _ => return Err(scales.wrong(format!("a row of {outputs} for each group"))),
        };
        let zeros = self.beside(&main, &format!("{module}.qzeros"))?;
        let zeros = zeros.exactly("I32", &[count, outputs / 8])?;
        let groups = groups(None, [inputs, count])?;
        let zeros = packed::zeros(Packing::Awq, zeros, 4, [count, outputs], 0);
        let scales = scales.floats()?;
        let layout = Packed { packing: Packing::Awq, bits: 4, words, outputs, inputs, groups, scales, zeros };
        Ok(Some((main, Layout::Packed(layout))))
    }

    /// pack-quantized of compressed-tensors.
    fn packed_rows(&self, module: &str, [outputs, inputs]: [usize; 2]) -> Result<Option<Found<'_>>> {
        let Some(main) = self.stored(&format!("{module}.weight_packed"))? else { return Ok(None) };
        let words_in_row = |bits: usize| (inputs * bits).div_ceil(32);
        let bits = [2, 4, 8].into_iter().find(|&bits| main.dims == [outputs, words_in_row(bits)]);
        let Some(bits) = bits else {
            return Err(main.wrong(format!("2, 4 or 8 bits for {inputs} inputs and {outputs} outputs")));
        };
        let words = main.exactly("I32", &[outputs, words_in_row(bits)])?;
        self.stored(&format!("{module}.weight_shape"))?;
        let scales = self.beside(&main, &format!("{module}.weight_scale"))?;
        let count = match *scales.dims {
            [rows, count] if rows == outputs && count > 0 => count,
            [rows] if rows == outputs => 1,
            _ => return Err(scales.wrong(format!("a row for each of {outputs} outputs"))),
        };
        let order = self.stored(&format!("{module}.weight_g_idx"))?;
        let groups = groups(order, [inputs, count])?;
        let zeros = match self.stored(&format!("{module}.weight_zero_point"))? {
            Some(zeros) => {
                let words = zeros.exactly("I32", &[(outputs * bits).div_ceil(32), count])?;
                packed::zeros(Packing::Rows, words, bits, [outputs, count], 0)
            }
            None => vec![(1 << (bits - 1)) as f32; outputs * count],
        };
        let scales = scales.floats()?;
        let layout = Packed { packing: Packing::Rows, bits, words, outputs, inputs, groups, scales, zeros };
        Ok(Some((main, Layout::Packed(layout))))
    }

    /// FP8, and integers of 8 bits.
    fn scaled(
        &self,
        module: &str,
        shape: [usize; 2],
        block: Option<[usize; 2]>,
    ) -> Result<Option<Found<'_>>> {
        let name = format!("{module}.weight");
        let Some((found, entry)) = self.find(&name) else { return Ok(None) };
        let (kind, ..) = self.files[entry.file].raw(found)?;
        if !["F8_E4M3", "I8"].contains(&kind.as_str()) {
            return Ok(None);
        }
        let Some(main) = self.stored(&name)? else { return Ok(None) };
        let numbers = main.exactly(&kind, &shape)?;
        let inverse = self.stored(&format!("{module}.weight_scale_inv"))?;
        let scales = match inverse {
            Some(scales) => scales,
            None => self.beside(&main, &format!("{module}.weight_scale"))?,
        };
        let fits = || format!("scales of the matrix, its rows or its blocks, for shape {shape:?}");
        let sides = scaled::block_of(scales.dims, shape, block).ok_or_else(|| scales.wrong(fits()))?;
        let zeros = match self.stored(&format!("{module}.weight_zero_point"))? {
            Some(zeros) => {
                zeros.exactly("I8", scales.dims)?.iter().map(|&byte| f32::from(byte as i8)).collect()
            }
            None => Vec::new(),
        };
        for unused in ["input_scale", "activation_scale", "input_zero_point", "output_scale"] {
            self.stored(&format!("{module}.{unused}"))?;
        }
        let layout = Scaled {
            numbers,
            float: kind != "I8",
            inputs: shape[1],
            in_row: shape[1].div_ceil(sides[1]),
            scales: scales.floats()?,
            factor: 1.0,
            zeros,
            block: sides,
        };
        Ok(Some((main, Layout::Scaled(layout))))
    }

    fn bitsandbytes(&self, module: &str, shape: [usize; 2]) -> Result<Option<Found<'_>>> {
        let [outputs, inputs] = shape;
        let name = format!("{module}.weight");
        if let Some(largest) = self.stored(&format!("{module}.SCB"))? {
            let main = self.beside(&largest, &name)?;
            let numbers = main.exactly("I8", &shape)?;
            largest.exactly("F32", &[outputs])?;
            if let Some(format) = self.stored(&format!("{module}.weight_format"))?
                && format.bytes.iter().any(|byte| *byte != 0)
            {
                return Err(format.wrong("0, for rows in their order"));
            }
            let layout = Scaled {
                numbers,
                float: false,
                inputs,
                scales: largest.floats()?,
                factor: 1.0 / 127.0,
                zeros: Vec::new(),
                block: [1, inputs.max(1)],
                in_row: 1,
            };
            return Ok(Some((main, Layout::Scaled(layout))));
        }
        let Some(largest) = self.stored(&format!("{name}.absmax"))? else { return Ok(None) };
        let main = self.beside(&largest, &name)?;
        let states =
            ["nf4", "fp4"].map(|kind| self.stored(&format!("{name}.quant_state.bitsandbytes__{kind}")));
        let [normal, float] = states;
        let Some(state) = normal?.or(float?) else {
            return Err(main
                .file
                .wrong(format!("tensor {name} without its quant_state"), "one of NF4 or FP4"));
        };
        let read: State = serde_json::from_slice(state.bytes).map_err(|error| {
            state.file.wrong(format!("tensor {}: {error}", state.name), "the state of bitsandbytes")
        })?;
        let numbers = outputs * inputs;
        if read.shape != shape || read.blocksize == 0 || !["nf4", "fp4"].contains(&read.quant_type.as_str()) {
            let found = format!(
                "tensor {name} of {}, shape {:?} and blocks of {}",
                read.quant_type, read.shape, read.blocksize
            );
            return Err(state.file.wrong(found, format!("nf4 or fp4 of shape {shape:?}")));
        }
        if main.bytes.len() != numbers.div_ceil(2) {
            return Err(main.wrong(format!("{} bytes", numbers.div_ceil(2))));
        }
        let values = self.beside(&main, &format!("{name}.quant_map"))?;
        values.exactly("F32", &[16])?;
        let count = numbers.div_ceil(read.blocksize);
        let scales = match self.stored(&format!("{name}.nested_absmax"))? {
            None => {
                largest.exactly("F32", &[count])?;
                largest.floats()?
            }
            Some(nested) => {
                let numbers = largest.exactly("U8", &[count])?;
                let map = self.beside(&main, &format!("{name}.nested_quant_map"))?;
                map.exactly("F32", &[256])?;
                let block = read.nested_blocksize.filter(|block| *block > 0).unwrap_or(256);
                nested.exactly("F32", &[count.div_ceil(block)])?;
                let (map, nested, offset) =
                    (map.floats()?, nested.floats()?, read.nested_offset.unwrap_or(0.0));
                let scale = |(at, &number): (usize, &u8)| map[number as usize] * nested[at / block] + offset;
                numbers.iter().enumerate().map(scale).collect()
            }
        };
        let layout =
            FourBits { bytes: main.bytes, values: values.floats()?, scales, block: read.blocksize, inputs };
        Ok(Some((main, Layout::FourBits(layout))))
    }
}

/// The tensor with a matrix's numbers, and how they become values.
type Found<'a> = (Stored<'a>, Layout<'a>);

/// The group of each input: as a tensor says, or in order.
fn groups(order: Option<Stored>, [inputs, count]: [usize; 2]) -> Result<Vec<u32>> {
    let Some(order) = order else {
        let size = inputs.div_ceil(count).max(1);
        return Ok((0..inputs).map(|input| (input / size) as u32).collect());
    };
    let bytes = order.exactly("I32", &[inputs])?;
    let groups: Vec<u32> = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
    // compressed-tensors writes −1 for an order that was not chosen.
    if groups.iter().all(|group| *group == u32::MAX) {
        return self::groups(None, [inputs, count]);
    }
    match groups.iter().find(|group| **group as usize >= count) {
        Some(group) => {
            let found = format!("group {} in tensor {}", *group as i32, order.name);
            Err(order.file.wrong(found, format!("0 to {}", count - 1)))
        }
        None => Ok(groups),
    }
}

impl Quantised<'_> {
    /// The rows as an f32 matrix `[rows, width]`.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn read(&self) -> Result<Tensor> {
        let mut out = vec![0f32; self.rows.len() * self.width];
        out.par_chunks_mut(self.width.max(1)).zip(&self.rows).for_each(|(out, row)| match &self.layout {
            Layout::Packed(packed) => packed.row(*row, out),
            Layout::Scaled(scaled) => scaled.row(*row, out),
            Layout::FourBits(four) => four.row(*row, out),
        });
        self.main.file.release(self.main.bytes);
        if let Some(index) = out.iter().position(|number| !number.is_finite()) {
            let found = format!("{} at index {index} of the rows of tensor {}", out[index], self.main.name);
            return Err(self.main.file.wrong(found, "finite values"));
        }
        Ok(Tensor::from_vec(out, (self.rows.len(), self.width), &Device::Cpu)?)
    }
}
