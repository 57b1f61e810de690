//! Methods without PyO3's argument parsing and counting of attached threads, for those that run once per callback,
//! timer, task or message: [`FastMethod`]s get their arguments as they are passed, [`PlainMethod`]s have none,
//! [`TupleMethod`]s get the tuple and the dictionary that they pass on.
//!
//! What they drop they [`release`](super::call::release): PyO3 would put it off on a thread that it was not told of.
#![expect(unsafe_code, reason = "a fast-call method is a C function that gets raw argument pointers")]

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PySystemError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
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

    /// The only argument, of a method that takes one.
    #[inline]
    pub fn only(&self, method: &str) -> PyResult<&'a Borrowed<'a, 'py, PyAny>> {
        self.no_keywords(method)?;
        Ok(&self.exactly(method, 1)?[0])
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

/// A method of the class `Class` that takes no arguments.
pub trait PlainMethod {
    /// The class.
    type Class: PyTypeInfo;
    /// The method's name in Python.
    const NAME: &'static CStr;
    /// Its signature line, two dashes and its docstring.
    const DOCUMENTATION: &'static CStr;

    /// Run it.
    fn call(object: &Bound<'_, Self::Class>) -> ThinResult<Py<PyAny>>;
}

/// A method of the class `Class` that gets its arguments as a tuple and a dictionary, to pass them on.
pub trait TupleMethod {
    /// The class.
    type Class: PyTypeInfo;
    /// The method's name in Python.
    const NAME: &'static CStr;
    /// Its signature line, two dashes and its docstring.
    const DOCUMENTATION: &'static CStr;

    /// Run it.
    fn call(
        object: &Bound<'_, Self::Class>,
        arguments: Borrowed<'_, '_, PyTuple>,
        keywords: Option<Borrowed<'_, '_, PyDict>>,
    ) -> ThinResult<Py<PyAny>>;
}

/// Add a fast method to its class, or to one derived from it. Called once per method and class, at import.
pub fn add_method<M: FastMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let function = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: dispatch::<M> };
    add::<M::Class>(class, M::NAME, function, ffi::METH_FASTCALL | ffi::METH_KEYWORDS, M::DOCUMENTATION)
}

/// As [`add_method`], without arguments.
pub fn add_plain_method<M: PlainMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let function = ffi::PyMethodDefPointer { PyCFunction: dispatch_plain::<M> };
    add::<M::Class>(class, M::NAME, function, ffi::METH_NOARGS, M::DOCUMENTATION)
}

/// As [`add_method`], with a tuple and a dictionary.
pub fn add_tuple_method<M: TupleMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let function = ffi::PyMethodDefPointer { PyCFunctionWithKeywords: dispatch_tuple::<M> };
    add::<M::Class>(class, M::NAME, function, ffi::METH_VARARGS | ffi::METH_KEYWORDS, M::DOCUMENTATION)
}

/// Add the method of `Class` that `function` is, by a calling convention that fits `flags`.
fn add<Class: PyTypeInfo>(
    class: &Bound<'_, PyType>,
    name: &'static CStr,
    function: ffi::PyMethodDefPointer,
    flags: std::ffi::c_int,
    documentation: &'static CStr,
) -> PyResult<()> {
    if !class.is_subclass_of::<Class>()? {
        return Err(PyTypeError::new_err("a method for another class"));
    }
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: function,
        ml_flags: flags,
        ml_doc: documentation.as_ptr(),
    }));
    // SAFETY: `class` is a type object; the definition is leaked, so it outlives the descriptor.
    let descriptor = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: the call returns a new reference or null with an exception set.
    let descriptor = unsafe { Bound::from_owned_ptr_or_err(class.py(), descriptor) }?;
    let name = name.to_str().map_err(|_| PySystemError::new_err("a method name is not UTF-8"))?;
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
    // SAFETY: as the caller promises.
    let object = unsafe { receiver::<M::Class>(object) };
    let keyword_names = if keyword_names.is_null() {
        None
    } else {
        // SAFETY: non-null keyword names are a tuple that lives during the call.
        let names = unsafe { Borrowed::from_ptr(object.py(), keyword_names) };
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
    guarded(object.py(), || match keyword_names {
        Some(names) if positional.len() < M::POSITIONAL.len() => {
            call_by_name::<M>(&object, &arguments, names)
        }
        _ => M::call(&object, &arguments),
    })
}

/// The C function behind a plain method.
///
/// # Safety
/// As for [`dispatch`], as a METH_NOARGS method.
unsafe extern "C" fn dispatch_plain<M: PlainMethod>(
    object: *mut ffi::PyObject,
    _nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller promises.
    let object = unsafe { receiver::<M::Class>(object) };
    guarded(object.py(), || M::call(&object))
}

/// The C function behind a tuple method.
///
/// # Safety
/// As for [`dispatch`], as a METH_VARARGS | METH_KEYWORDS method.
unsafe extern "C" fn dispatch_tuple<M: TupleMethod>(
    object: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller promises.
    let object = unsafe { receiver::<M::Class>(object) };
    let py = object.py();
    // SAFETY: the calling convention passes a tuple that lives during the call.
    let arguments = unsafe { Borrowed::from_ptr(py, arguments) };
    // SAFETY: as above.
    let arguments = unsafe { arguments.cast_unchecked::<PyTuple>() };
    // SAFETY: a dictionary that lives during the call, or null.
    let keywords = unsafe { Borrowed::from_ptr_or_opt(py, keywords) };
    // SAFETY: as above.
    let keywords = keywords.map(|keywords| unsafe { keywords.cast_unchecked::<PyDict>() });
    guarded(py, || M::call(&object, arguments, keywords))
}

/// The object that a method was called on, during the call.
///
/// # Safety
/// `object` is what the interpreter passed to a method of `Class`.
#[inline(always)]
unsafe fn receiver<'a, Class: PyTypeInfo>(object: *mut ffi::PyObject) -> Borrowed<'a, 'a, Class> {
    // SAFETY: the interpreter calls methods on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter holds a reference to `self` during the call.
    let object = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: the method descriptor checked that `self` is an instance of the class, or of one derived from it.
    unsafe { object.cast_unchecked::<Class>() }
}

/// Run a method for the interpreter; a panic becomes an exception.
#[inline(always)]
fn guarded(py: Python<'_>, run: impl FnOnce() -> ThinResult<Py<PyAny>>) -> *mut ffi::PyObject {
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
