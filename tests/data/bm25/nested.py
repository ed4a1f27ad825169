"""	Module.

    Indented by four,
      and six.
	A tab.
"""


def first():
    """First."""

    def inside():
        "Inside first."

        class Deep:
            """Deep.

            """


if first:
    def in_if(): "In if."
elif inside:
    def in_elif(): "In elif."
    try:
        def in_try(): "In try."
    except ValueError:
        def in_except(): "In except."
    else:
        def in_try_else(): "In else of try."
    finally:
        def in_finally(): "In finally."
elif 1:
    def in_second_elif(): "In second elif."
else:
    def in_else(): "In else."

for x in y:
    def in_for(): "In for."
else:
    def in_for_else(): "In else of for."

while x:
    class InWhile:
        "In while."

        async def method(self):
            r"""Raw \n method."""

with x as y, z:
    def in_with(): "In" " with."

match x:
    case 1:
        def in_case(): "In case."
    case {"k": v} if v:
        def in_second_case(): "In second case."

try:
    pass
except* ValueError:
    def in_group(): "In group."


def no_docstring(): x = "no"
def bytes_docstring(): b"no"
def f_docstring(): f"no"
def empty_docstring(): ""
def blank_docstring(): "   "


class Last:
    '''One line.'''
    x = 1
    "Not a docstring."
    @decorated(lambda: 1)
    def method(self):
        '''
        First line is blank.

            More.


        '''
