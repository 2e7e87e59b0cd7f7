"""The extension as a whole: that it is what is tested where it is asked for, who gets it, and what it leaves."""
import asynchat
import asyncore
import os
import types
import unittest

PURE = os.environ.get("ASYNCORE_PURE", "") not in ("", "0")


class Loaded(unittest.TestCase):
    def test_these_tests_run_on_what_they_are_named_for(self):
        python = (types.FunctionType,) * 4
        c = (types.MethodDescriptorType, types.MethodDescriptorType, types.MethodDescriptorType,
             types.BuiltinFunctionType)
        self.assertEqual(asyncore._extension is None, PURE)
        self.assertEqual((type(asyncore.dispatcher.recv), type(asyncore.dispatcher_with_send.send),
                          type(asynchat.async_chat.push), type(asyncore.loop)), python if PURE else c)


if __name__ == "__main__":
    unittest.main()
