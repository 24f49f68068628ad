from . import causes as causes
from . import channels as channels
from . import drawn as drawn
from . import effects as effects
from . import evaluation as evaluation
from . import guidance as guidance
from . import maps as maps
from . import style as style
