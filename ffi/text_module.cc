#include <nanobind/nanobind.h>
namespace fsparse { void DefineText(nanobind::module_&) {} }
