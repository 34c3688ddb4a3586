//! The names and objects of torch and numpy in a pickle: what each makes of the values on the stack.

use super::layout::{Kind, Number};
use super::pickle::{Array, Description, Machine, Value};

const KINDS: [(&str, Kind); 4] = [
    ("torch FloatStorage", Kind::F32),
    ("torch DoubleStorage", Kind::F64),
    ("torch HalfStorage", Kind::F16),
    ("torch BFloat16Storage", Kind::Bf16),
];

impl Machine<'_> {
    /// The state of an array or a type of numpy.
    pub fn build(&mut self) -> Result<(), String> {
        let (state, object) = (self.pop()?, self.pop()?);
        let Value::Tuple(state) = &*state else { return Err("a state that is no tuple".into()) };
        let built = match (&*object, state.as_slice()) {
            (Value::Dtype(number), [_, order, ..]) => match &**order {
                Value::Text(order) if ["<", "=", "|"].contains(&order.as_str()) => Value::Dtype(*number),
                Value::Text(order) if order == ">" => Value::Dtype(Number { big_endian: true, ..*number }),
                _ => return Err("a type of numbers in an unknown order of bytes".into()),
            },
            (Value::Empty, [_, shape, dtype, by_columns, bytes]) => {
                let by_columns = matches!(**by_columns, Value::Flag(true));
                Value::Array(array_of(shape, dtype, by_columns, bytes)?)
            }
            (object, _) => return Err(format!("a state of {}", object.kind())),
        };
        self.push(built);
        Ok(())
    }

    /// The names that a tensor or an array needs. They are compared, never imported.
    pub fn global(&mut self, name: &str) -> Result<(), String> {
        let kind = KINDS.iter().find(|(known, ..)| *known == name);
        self.push(match (name, kind) {
            ("torch._utils _rebuild_tensor_v2", _) => Value::Rebuild,
            ("torch._utils _rebuild_parameter", _) => Value::Parameter,
            ("collections OrderedDict", _) => Value::Ordered,
            (_, Some((_, kind))) => Value::Kind(*kind),
            ("numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct", _) => {
                Value::Reconstruct
            }
            ("numpy.core.numeric _frombuffer" | "numpy._core.numeric _frombuffer", _) => Value::FromBuffer,
            ("numpy ndarray", _) => Value::NdArray,
            ("numpy dtype", _) => Value::DtypeClass,
            _ => return Err(format!("the name {name:?} in its pickle")),
        });
        Ok(())
    }

    pub fn storage(&mut self) -> Result<(), String> {
        let value = self.pop()?;
        let wrong = || "a storage that is described in another way than torch does".to_string();
        let Value::Tuple(parts) = &*value else { return Err(wrong()) };
        let [what, kind, key, _, count] = parts.as_slice() else { return Err(wrong()) };
        match (&**what, &**kind, &**key, count.count()) {
            (Value::Text(what), Value::Kind(kind), Value::Text(key), Some(count)) if what == "storage" => {
                let storage = Value::Storage { kind: *kind, key: key.clone(), count };
                self.push(storage);
                Ok(())
            }
            _ => Err(wrong()),
        }
    }

    pub fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = &*arguments else { return Err("a call without arguments".into()) };
        match (&*function, arguments.as_slice()) {
            (Value::Ordered, []) => {
                self.push(Value::Nothing);
                Ok(())
            }
            (Value::Rebuild, [storage, offset, shape, stride, _, hooks]) => {
                let (Value::Storage { kind, key, count }, Value::Nothing) = (&**storage, &**hooks) else {
                    return Err("a tensor without a storage, or with hooks".into());
                };
                let parts = (offset.count(), shape.counts(), stride.counts());
                let (Some(offset), Some(shape), Some(stride)) = parts else {
                    return Err("a tensor whose shape is no tuple of numbers from 0 up".into());
                };
                self.push(Value::Tensor(Description {
                    number: Number::little(*kind),
                    storage: key.clone(),
                    count: *count,
                    offset,
                    shape,
                    stride,
                }));
                Ok(())
            }
            (Value::Parameter, [tensor, _, hooks])
                if matches!((&**tensor, &**hooks), (Value::Tensor(_), Value::Nothing)) =>
            {
                self.stack.push(tensor.clone());
                Ok(())
            }
            (Value::Reconstruct, [class, _, _]) if matches!(**class, Value::NdArray) => {
                self.push(Value::Empty);
                Ok(())
            }
            (Value::FromBuffer, [bytes, dtype, shape, order]) => {
                let by_columns = matches!(&**order, Value::Text(order) if order == "F");
                let array = array_of(shape, dtype, by_columns, bytes)?;
                self.push(Value::Array(array));
                Ok(())
            }
            (Value::DtypeClass, [name, ..]) => {
                let Value::Text(name) = &**name else {
                    return Err("a type of numbers without a name".into());
                };
                let number = Number::of_numpy(name).ok_or_else(|| format!("numbers of type {name}"))?;
                self.push(Value::Dtype(number));
                Ok(())
            }
            (function, arguments) => {
                Err(format!("a call of {} with {} arguments", function.kind(), arguments.len()))
            }
        }
    }
}

/// An array whose shape fills its bytes.
fn array_of(shape: &Value, dtype: &Value, by_columns: bool, bytes: &Value) -> Result<Array, String> {
    let (Some(shape), Value::Dtype(number), &Value::Bytes(begin, length)) = (shape.counts(), dtype, bytes)
    else {
        return Err("an array that is described in another way than numpy does".into());
    };
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
    if count.and_then(|count| count.checked_mul(number.size())) != Some(length) {
        return Err(format!("{length} bytes of numbers for the shape {shape:?}"));
    }
    Ok(Array { number: *number, shape, by_columns, bytes: (begin, length) })
}
