"""The type stubs name what there is, all of it, and by the same arguments."""
import ast
import inspect
import os
import unittest

import asynchat
import asyncore
import libasyncore
import smtpd


class Stubs(unittest.TestCase):
    def stubs(self, module):
        """The classes and functions of a module's stub, by name."""
        folder = os.path.dirname(module.__file__)
        self.assertTrue(os.path.exists(os.path.join(folder, "py.typed")), folder)
        with open(os.path.join(folder, "__init__.pyi")) as file:
            body = ast.parse(file.read()).body
        return {node.name: node for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}

    def test_what_they_name_is_there(self):
        for module in (asyncore, asynchat, smtpd, libasyncore):
            for name, node in self.stubs(module).items():
                found = asyncore._serving.Timer if (module, name) == (asyncore, "timer") else getattr(module, name)
                for part in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(part, ast.FunctionDef):
                        self.assertTrue(hasattr(found, part.name), (name, part.name))

    def functions(self, module):
        """(name, what there is, the stub's node) of functions and methods."""
        for name, node in self.stubs(module).items():
            found = getattr(module, name)
            if isinstance(node, ast.FunctionDef):
                yield name, found, node
                continue
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.decorator_list:
                    yield name + "." + part.name, getattr(found, part.name), part

    def test_arguments_have_their_names_and_defaults(self):
        for module in (asyncore, asynchat, smtpd, libasyncore):
            for name, found, node in self.functions(module):
                stub = node.args
                words = [arg.arg for arg in stub.args + stub.kwonlyargs]
                optional = words[len(stub.args) - len(stub.defaults):len(stub.args)]
                optional += [arg.arg for arg, default in zip(stub.kwonlyargs, stub.kw_defaults) if default]
                real = [p for p in inspect.signature(found).parameters.values()
                        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
                self.assertEqual([p.name for p in real], words, name)
                self.assertEqual([p.name for p in real if p.default is not p.empty], optional, name)

    def test_what_is_public_is_named(self):
        for module in (asyncore, asynchat, smtpd, libasyncore):
            public = {
                name
                for name, found in vars(module).items()
                if not name.startswith("_") and callable(found)
                and getattr(found, "__module__", None) == module.__name__
            }
            self.assertEqual(set(), public - set(self.stubs(module)))


if __name__ == "__main__":
    unittest.main()
