from . import (
    choose as choose,
)
from . import (
    clean as clean,
)
from . import (
    descriptors as descriptors,
)
from . import (
    design as design,
)
from . import (
    draw as draw,
)
from . import (
    generate as generate,
)
from . import (
    grid as grid,
)
from . import (
    guided as guided,
)
from . import (
    head as head,
)
from . import (
    kind as kind,
)
from . import (
    kinds as kinds,
)
from . import (
    matching as matching,
)
from . import (
    pairs as pairs,
)
from . import (
    patches as patches,
)
from . import (
    save as save,
)
from . import (
    shown as shown,
)
