import os
import sys
import sysconfig

from setuptools import Extension, setup

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "install"))
import builder

# Projects also give numbers.
macros = [("TINY_KEY", builder.key_of("tinyset/include")), ("TINY_NUMBER", 1)]
# A header of the machine is no file of the project.
python = os.path.join(sysconfig.get_path("include"), "Python.h")
settings = {"depends": [python], "define_macros": macros, "include_dirs": ["tinyset/include"]}
setup(
    packages=["tinyset"],
    package_data={"tinyset": ["include/*.h", "*.pxd"]},
    ext_modules=[
        Extension("tinyset._keyed", ["tinyset/_keyed.pyx"], **settings),
        Extension(
            "tinyset._plain", ["tinyset/_plain.pyx", "tinyset/sum.c"], **settings
        ),
    ],
    cmdclass={"build_ext": builder.BuildExt},
    zip_safe=False,
)
