//! Methods called by vectorcall without PyO3's argument parsing: for the handful that run once per
//! callback, timer or task.
#![expect(unsafe_code, reason = "a fast-call method is a C function that gets raw argument pointers")]

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PySystemError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo, ffi};

use super::gil_cell::GilCell;
use crate::error::ThinResult;

/// The arguments of one call, borrowed from the caller.
#[derive(Clone, Copy)]
pub struct Arguments<'a, 'py> {
    positional: &'a [Borrowed<'a, 'py, PyAny>],
    keyword_values: &'a [Borrowed<'a, 'py, PyAny>],
    keyword_names: Option<Borrowed<'a, 'py, PyTuple>>,
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// The positional arguments; TypeError where there are fewer than `least`.
    #[inline]
    pub fn at_least(&self, method: &str, least: usize) -> PyResult<&'a [Borrowed<'a, 'py, PyAny>]> {
        if self.positional.len() < least { Err(self.too_few(method, least)) } else { Ok(self.positional) }
    }

    #[cold]
    fn too_few(&self, method: &str, least: usize) -> PyErr {
        PyTypeError::new_err(format!(
            "{method}() takes at least {least} positional argument{} ({} given)",
            if least == 1 { "" } else { "s" },
            self.positional.len()
        ))
    }

    /// The positional arguments, which must be exactly `count`.
    #[inline]
    pub fn exactly(&self, method: &str, count: usize) -> PyResult<&'a [Borrowed<'a, 'py, PyAny>]> {
        if self.positional.len() == count {
            Ok(self.positional)
        } else {
            Err(self.not_exactly(method, count))
        }
    }

    #[cold]
    fn not_exactly(&self, method: &str, count: usize) -> PyErr {
        PyTypeError::new_err(format!(
            "{method}() takes {count} positional argument{} but {} were given",
            if count == 1 { "" } else { "s" },
            self.positional.len()
        ))
    }

    /// Refuse keywords; those that name positional arguments were put into their places before.
    pub fn no_keywords(&self, method: &str) -> PyResult<()> {
        match self.keywords().next() {
            None => Ok(()),
            Some((name, _)) => {
                Err(PyTypeError::new_err(format!("{method}() got an unexpected keyword argument '{name}'")))
            }
        }
    }

    /// The value of the only keyword the method takes, an interned `name`, if it was given and is not None.
    #[inline]
    pub fn only_keyword(
        &self,
        method: &str,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        match self.keyword_names {
            None => Ok(None),
            Some(names) => self.value_of(names, method, name),
        }
    }

    fn value_of(
        &self,
        names: Borrowed<'a, 'py, PyTuple>,
        method: &str,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        if let [given] = self.keyword_values
            && is_only(names, name)?
        {
            return Ok(Some(*given).filter(|given| !given.is_none()));
        }
        let mut value = None;
        for (keyword, given) in self.keywords() {
            if !keyword.as_any().eq(name)? {
                return Err(PyTypeError::new_err(format!(
                    "{method}() got an unexpected keyword argument '{keyword}'"
                )));
            }
            value = Some(given).filter(|given| !given.is_none());
        }
        Ok(value)
    }

    /// The names of the keyword arguments, if there are any.
    pub fn keyword_names(&self) -> Option<Bound<'py, PyTuple>> {
        self.keyword_names.map(|names| names.to_owned())
    }

    /// The values of the keyword arguments.
    pub fn keyword_values(&self) -> &'a [Borrowed<'a, 'py, PyAny>] {
        self.keyword_values
    }

    /// Every keyword argument.
    pub fn keywords(&self) -> impl Iterator<Item = (Bound<'py, PyString>, Borrowed<'a, 'py, PyAny>)> {
        let names = self.keyword_names.map(|names| names.to_owned());
        self.keyword_values.iter().enumerate().filter_map(move |(index, value)| {
            let name = names.as_ref()?.get_item(index).ok()?.cast_into::<PyString>().ok()?;
            Some((name, *value))
        })
    }
}

/// Whether the only one of `names` is `name`, which is interned.
///
/// The C task passes the same tuple each time, with a string that is not interned: it is remembered.
fn is_only(names: Borrowed<'_, '_, PyTuple>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    static KNOWN: GilCell<Option<(Py<PyTuple>, Py<PyString>)>> = GilCell::new(None);
    let py = names.py();
    let keyword = names.get_borrowed_item(0)?;
    if keyword.is(name) {
        return Ok(true);
    }
    let is_known =
        KNOWN.with(py, |known| known.as_ref().is_some_and(|(of, to)| of.is(&*names) && to.is(name)));
    if is_known {
        return Ok(true);
    }
    let is_it = keyword.eq(name)?;
    if is_it {
        let known = (names.to_owned().unbind(), name.clone().unbind());
        drop(KNOWN.with(py, |before| before.replace(known)));
    }
    Ok(is_it)
}

/// A method of the class `Class` that gets its arguments as they are passed.
pub trait FastMethod {
    /// The class.
    type Class: PyTypeInfo;
    /// The method's name in Python.
    const NAME: &'static CStr;
    /// The names of its first positional arguments, which may also be given by name.
    const POSITIONAL: &'static [&'static str];
    /// Its signature line, two dashes and its docstring.
    const DOCUMENTATION: &'static CStr;

    /// Run it.
    fn call(object: &Bound<'_, Self::Class>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>>;
}

/// Add a fast method to its class, or to one derived from it. Called once per method and class, at import.
pub fn add_method<M: FastMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    if !class.is_subclass_of::<M::Class>()? {
        return Err(PyTypeError::new_err("a method for another class"));
    }
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: dispatch::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: M::DOCUMENTATION.as_ptr(),
    }));
    // SAFETY: `class` is a type object; the definition is leaked, so it outlives the descriptor.
    let descriptor = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: the call returns a new reference or null with an exception set.
    let descriptor = unsafe { Bound::from_owned_ptr_or_err(class.py(), descriptor) }?;
    let name = M::NAME.to_str().map_err(|_| PySystemError::new_err("a method name is not UTF-8"))?;
    class.setattr(name, descriptor)
}

/// Run a method with positional arguments among its keywords: put them into their places first.
#[cold]
fn call_by_name<M: FastMethod>(
    object: &Bound<'_, M::Class>,
    arguments: &Arguments<'_, '_>,
    names: Borrowed<'_, '_, PyTuple>,
) -> ThinResult<Py<PyAny>> {
    let mut positional = arguments.positional.to_vec();
    let mut keywords: Vec<_> =
        names.to_owned().iter().zip(arguments.keyword_values.iter().copied()).collect();
    for name in &M::POSITIONAL[positional.len()..] {
        let mut place = None;
        for (index, (keyword, _)) in keywords.iter().enumerate() {
            if keyword.eq(name)? {
                place = Some(index);
            }
        }
        let Some(place) = place else { break };
        positional.push(keywords.remove(place).1);
    }
    let (names, keyword_values): (Vec<_>, Vec<_>) = keywords.into_iter().unzip();
    let names = PyTuple::new(object.py(), names)?;
    let keyword_names = Some(names.as_borrowed());
    M::call(object, &Arguments { positional: &positional, keyword_values: &keyword_values, keyword_names })
}

/// The C function behind a fast method: unpack the call and run it; a panic becomes an exception.
///
/// # Safety
/// To be called by the interpreter only, as a METH_FASTCALL | METH_KEYWORDS method of `M::Class`.
unsafe extern "C" fn dispatch<M: FastMethod>(
    object: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    keyword_names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls methods on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter holds a reference to `self` during the call.
    let object = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: the method descriptor checked that `self` is an instance of the class, or of one derived from it.
    let object = unsafe { object.cast_unchecked::<M::Class>() };
    let keyword_names = if keyword_names.is_null() {
        None
    } else {
        // SAFETY: non-null keyword names are a tuple that lives during the call.
        let names = unsafe { Borrowed::from_ptr(py, keyword_names) };
        // SAFETY: as above.
        Some(unsafe { names.cast_unchecked::<PyTuple>() })
    };
    let positional = positional.unsigned_abs();
    let keywords = keyword_names.map_or(0, |names| names.len());
    let all: &[Borrowed<'_, '_, PyAny>] = if positional + keywords == 0 {
        &[]
    } else {
        // SAFETY: the calling convention passes that many valid object pointers, borrowed for the call;
        // `Borrowed` is a transparent object pointer.
        unsafe { std::slice::from_raw_parts(arguments.cast(), positional + keywords) }
    };
    let (positional, keyword_values) = all.split_at(positional);
    let arguments = Arguments { positional, keyword_values, keyword_names };
    let run = || match keyword_names {
        Some(names) if positional.len() < M::POSITIONAL.len() => {
            call_by_name::<M>(&object, &arguments, names)
        }
        _ => M::call(&object, &arguments),
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => value.into_ptr(),
        Ok(Err(error)) => {
            PyErr::from(error).restore(py);
            std::ptr::null_mut()
        }
        Err(_panic) => {
            PySystemError::new_err("aioxide panicked; please report this as a bug").restore(py);
            std::ptr::null_mut()
        }
    }
}
