"""The type stubs name what there is, and all of it."""
import ast
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

    def test_what_is_public_is_named(self):
        for module in (asyncore, asynchat, libasyncore):
            public = {
                name
                for name, found in vars(module).items()
                if not name.startswith("_") and callable(found)
                and getattr(found, "__module__", None) == module.__name__
            }
            self.assertEqual(set(), public - set(self.stubs(module)))


if __name__ == "__main__":
    unittest.main()
